/** The actions of the specification. Each event of a trace is one of them, or several in a row. README.md says what each does. */
export const ACTIONS = [
  'Start',
  'Restart',
  'InstallSnapshot',
  'BeginProbation',
  'EndProbation',
  'LearnProbation',
  'AdoptTerm',
  'IgnoreStale',
  'KeepLease',
  'PreCampaign',
  'Campaign',
  'CampaignAtOnce',
  'LosePreVote',
  'LoseVote',
  'CountVote',
  'GrantVote',
  'RefuseVote',
  'AnswerPreVote',
  'GiveWay',
  'BecomeLeader',
  'StepDown',
  'ForgetLeader',
  'FollowLeader',
  'AppendSame',
  'AppendNew',
  'TruncateConflict',
  'RejectAppend',
  'FollowCommit',
  'LearnCommitted',
  'LearnMatch',
  'LearnRejection',
  'HearFollower',
  'Commit',
  'Rest',
  'FollowToRest',
  'Wake',
  'StandAside',
  'Propose',
  'ChangeLearners',
  'EnterJoint',
  'LeaveJoint',
  'ServePull',
  'RefusePull',
  'PullExtend',
  'PullTruncate',
  'Write',
  'BecomeDurable',
  'BecomeDurableAgain',
  'SendAppend',
  'SendHeartbeat',
  'SendVoteRequest',
  'SendPreVoteRequest',
  'SendVote',
  'SendPreVote',
  'SendRefusal',
  'SendAcknowledgement',
  'SendRejection',
  'SendHeartbeatAnswer',
  'SendTimeoutNow',
  'SendPull',
  'SendPullAnswer',
  'Pass',
] as const;
export type ActionName = (typeof ACTIONS)[number];

/** How often each action was taken. */
export class Coverage {
  readonly counts = new Map<ActionName, number>(ACTIONS.map((name) => [name, 0]));

  took(name: ActionName): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }

  get missing(): ActionName[] {
    return ACTIONS.filter((name) => this.counts.get(name) === 0);
  }

  /** From 0 to 1. */
  get share(): number {
    return 1 - this.missing.length / ACTIONS.length;
  }
}
