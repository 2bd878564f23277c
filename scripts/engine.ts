import { spawnSync } from 'node:child_process';

/** Whether a Docker engine answers here. */
export function hasEngine(): boolean {
  return spawnSync('docker', ['info'], { stdio: 'ignore' }).status === 0;
}

/** Whether the engine has the image: nothing is pulled. */
export function hasImage(image: string): boolean {
  return spawnSync('docker', ['image', 'inspect', image], { stdio: 'ignore' }).status === 0;
}
