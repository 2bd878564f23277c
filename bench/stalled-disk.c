/* A disk that stalls: fsync and fdatasync of a process wait while there is a file STALL_DIRECTORY/PID. Loaded into brokers by stalled-disk.ts (LD_PRELOAD). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_while_stalled(void) {
  const char *directory = getenv("STALL_DIRECTORY");
  char path[4096];
  if (directory == NULL) return;
  snprintf(path, sizeof path, "%s/%d", directory, (int)getpid());
  while (access(path, F_OK) == 0) usleep(5000);
}

int fdatasync(int file) {
  static int (*real)(int);
  if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  wait_while_stalled();
  return real(file);
}

int fsync(int file) {
  static int (*real)(int);
  if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  wait_while_stalled();
  return real(file);
}
