/** Says which port is taken before any process is started. */
import { createServer } from 'node:net';
import { Failure } from '../failures.ts';

export async function checkPorts(ports: readonly number[]): Promise<void> {
  const taken = (await Promise.all(ports.map(isTaken))).indexOf(true);
  if (taken === -1) return;
  const port = ports[taken];
  throw new Failure(
    `Port ${port} is taken by another process. Choose other ports with --port, or find the process: ss -ltnp 'sport = :${port}'`,
  );
}

function isTaken(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(true));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(false)));
  });
}
