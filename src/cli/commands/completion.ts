/** `flotilla completion bash|zsh|fish`: made from the commands themselves, so that it never falls behind. */
import type { Command, Option } from 'commander';
import type { Session } from '../session.ts';

export type Shell = 'bash' | 'zsh' | 'fish';

/** One command with all that may follow its words. */
interface Node {
  /** `''`, `topic`, `topic create`, … */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly about: string }[];
  readonly options: readonly { readonly flag: string; readonly about: string; readonly choices: readonly string[] }[];
  readonly choices: readonly string[];
}

export async function completion(session: Session, shell: Shell, program: Command): Promise<void> {
  await session.out.line(completionScript(shell, program));
}

export function completionScript(shell: Shell, program: Command): string {
  const nodes = walk(program, '', program.options);
  if (shell === 'fish') return fish(nodes);
  return shell === 'bash' ? bash(nodes) : `#compdef flotilla\nautoload -U +X bashcompinit && bashcompinit\n${bash(nodes)}`;
}

function walk(command: Command, path: string, inherited: readonly Option[]): Node[] {
  const options = [...new Set([...command.options, ...inherited])].map((option) => ({
    flag: option.long ?? option.flags,
    about: option.description,
    choices: option.argChoices ?? [],
  }));
  const node: Node = {
    path,
    commands: command.commands.map((child) => ({ name: child.name(), about: child.description() })),
    options: [...options, { flag: '--help', about: 'help, with examples', choices: [] }],
    choices: command.registeredArguments.flatMap((argument) => argument.argChoices ?? []),
  };
  return [node, ...command.commands.flatMap((child) => walk(child, `${path} ${child.name()}`.trim(), inherited))];
}

function bash(nodes: readonly Node[]): string {
  const known = nodes.filter(({ path }) => path !== '').map(({ path }) => path);
  const words = nodes.map(({ path, commands, options, choices }) => {
    const next = [...commands.map(({ name }) => name), ...choices];
    return `    '${path}') words='${next.join(' ')}' options='${options.map(({ flag }) => flag).join(' ')}' ;;`;
  });
  const values = new Map(
    nodes.flatMap(({ options }) => options.filter((option) => option.choices.length > 0).map((o) => [o.flag, o.choices])),
  );
  const valueCases = [...values].map(
    ([flag, choices]) => `    ${flag}) COMPREPLY=($(compgen -W '${choices.join(' ')}' -- "$current")); return ;;`,
  );
  return `_flotilla() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" path='' words='' options='' word
  for word in "\${COMP_WORDS[@]:1:$((COMP_CWORD-1))}"; do
    case "\${path:+$path }$word" in
    ${known.map((path) => `'${path}'`).join('|')}) path="\${path:+$path }$word" ;;
    esac
  done
  case "$previous" in
${valueCases.join('\n')}
    --config|--data) COMPREPLY=($(compgen -f -- "$current")); return ;;
  esac
  case "$path" in
${words.join('\n')}
  esac
  case "$current" in
    -*) words="$options" ;;
  esac
  [ -n "$words" ] || words="$options"
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _flotilla flotilla`;
}

function fish(nodes: readonly Node[]): string {
  const known = nodes.filter(({ path }) => path !== '').map(({ path }) => quote(path));
  const lines = nodes.flatMap(({ path, commands, options, choices }) => {
    const rule = (rest: string) => `complete -c flotilla -n 'test (__flotilla_path) = "${path}"' ${rest}`;
    return [
      ...commands.map(({ name, about }) => rule(`-f -a ${name} -d ${quote(about)}`)),
      ...choices.map((choice) => rule(`-f -a ${choice}`)),
      ...options.map(({ flag, about, choices: values }) => {
        const argument = values.length > 0 ? ` -x -a '${values.join(' ')}'` : '';
        return rule(`-l ${flag.replace(/^--/, '')}${argument} -d ${quote(about)}`);
      }),
    ];
  });
  return `function __flotilla_path
  set -l path
  for word in (commandline -opc)[2..]
    set -l longer (string join -- ' ' $path $word)
    contains -- $longer ${known.join(' ')}; and set path $longer
  end
  echo "$path"
end
${lines.join('\n')}`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "\\'")}'`;
}
