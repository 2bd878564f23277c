interface Report {
  readonly userLimits?: { readonly open_files?: { readonly soft: number | 'unlimited' } };
}

/** How many files and sockets this process may have open: Node raises it at its start as far as it may be. Undefined: no limit, or none known. */
export function openFileLimit(): number | undefined {
  const report = process.report as typeof process.report & { excludeNetwork: boolean };
  report.excludeNetwork = true;
  const soft = (report.getReport() as Report).userLimits?.open_files?.soft;
  return typeof soft === 'number' ? soft : undefined;
}
