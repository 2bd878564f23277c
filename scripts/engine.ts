import { spawnSync } from 'node:child_process';

/** Whether a Docker engine answers here. */
export function hasEngine(): boolean {
  return succeeds('docker', 'info');
}

/** Whether the engine has the image: nothing is pulled. */
export function hasImage(image: string): boolean {
  return succeeds('docker', 'image', 'inspect', image);
}

/** `docker compose`, or docker-compose 1.29. */
export function hasCompose(): boolean {
  return hasComposePlugin() || succeeds('docker-compose', 'version');
}

export function hasComposePlugin(): boolean {
  return succeeds('docker', 'compose', 'version');
}

function succeeds(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}
