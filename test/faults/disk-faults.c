/*
 * Faults of a disk, below a process that knows nothing of them: LD_PRELOAD=disk-faults.so, and
 *
 *   DISK_FAULTS_DIRECTORY  only files below it are hit
 *   DISK_FAULTS            a file of rules, read again whenever it has changed; missing or empty: no faults
 *
 * One rule a line, `CALLS PATH FAULT [NUMBER]`; the first that fits decides:
 *
 *   CALLS  write, sync, read, stat (of the file system), joined by commas
 *   PATH   a part of the file's path, or *
 *   FAULT  eio, enospc   the call fails so; with NUMBER, as often as that
 *          slow          the call comes NUMBER milliseconds later
 *          short         half of the bytes are written or read, at least one. libuv completes a short write by itself unless what follows fails, so at
 *                        a position it does, with EAGAIN: then the process hears of it
 *          full          the file system says that nothing is free (stat alone)
 *
 * Node's libuv calls libc for files unless UV_USE_IO_URING=1 says otherwise.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { WRITE = 1, SYNC = 2, READ = 4, STAT = 8 };
enum fault { NONE, EIO_FAULT, ENOSPC_FAULT, SLOW, SHORT, FULL };

struct rule {
  int calls;
  char path[256];
  enum fault fault;
  long number; /* of an error: how often it still comes; -1: always */
};

#define MAX_RULES 32
static struct rule rules[MAX_RULES];
static int rule_count;
static struct timespec rules_changed;
static ino_t rules_inode;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static enum fault fault_named(const char *name) {
  if (strcmp(name, "eio") == 0) return EIO_FAULT;
  if (strcmp(name, "enospc") == 0) return ENOSPC_FAULT;
  if (strcmp(name, "slow") == 0) return SLOW;
  if (strcmp(name, "short") == 0) return SHORT;
  if (strcmp(name, "full") == 0) return FULL;
  return NONE;
}

static int calls_named(const char *names) {
  return (strstr(names, "write") ? WRITE : 0) | (strstr(names, "sync") ? SYNC : 0) | (strstr(names, "read") ? READ : 0) |
         (strstr(names, "stat") ? STAT : 0);
}

static void parse_rules(char *text) {
  rule_count = 0;
  for (char *rest = NULL, *line = strtok_r(text, "\n", &rest); line != NULL && rule_count < MAX_RULES; line = strtok_r(NULL, "\n", &rest)) {
    char calls[64], fault[16];
    struct rule *rule = &rules[rule_count];
    rule->number = -1;
    if (sscanf(line, "%63s %255s %15s %ld", calls, rule->path, fault, &rule->number) < 3) continue;
    rule->calls = calls_named(calls);
    rule->fault = fault_named(fault);
    if (rule->calls == 0 || rule->fault == NONE) {
      fprintf(stderr, "disk-faults: no such rule: %s\n", line);
      abort();
    }
    rule_count++;
  }
}

/* By system calls: what is intercepted must not come back here. */
static void read_rules(void) {
  const char *path = getenv("DISK_FAULTS");
  struct stat now;
  if (path == NULL || stat(path, &now) != 0) {
    rule_count = 0;
    rules_inode = 0;
    return;
  }
  if (now.st_ino == rules_inode && now.st_mtim.tv_sec == rules_changed.tv_sec && now.st_mtim.tv_nsec == rules_changed.tv_nsec) return;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  static char text[8192];
  long length = syscall(SYS_read, fd, text, sizeof text - 1);
  close(fd);
  if (length < 0) return;
  text[length] = 0;
  parse_rules(text);
  rules_inode = now.st_ino;
  rules_changed = now.st_mtim;
}

/* What is to happen to a call; its number, where it has one. */
static enum fault fault_of_path(enum call call, const char *path, long *number) {
  const char *directory = getenv("DISK_FAULTS_DIRECTORY");
  if (directory == NULL || strncmp(path, directory, strlen(directory)) != 0) return NONE;
  enum fault fault = NONE;
  pthread_mutex_lock(&lock);
  read_rules();
  for (int i = 0; i < rule_count; i++) {
    struct rule *rule = &rules[i];
    if ((rule->calls & call) == 0 || (strcmp(rule->path, "*") != 0 && strstr(path, rule->path) == NULL)) continue;
    *number = rule->number;
    fault = rule->fault;
    if (fault == EIO_FAULT || fault == ENOSPC_FAULT) {
      if (rule->number == 0) {
        fault = NONE;
        continue;
      }
      if (rule->number > 0) rule->number--;
    }
    break;
  }
  pthread_mutex_unlock(&lock);
  return fault;
}

static enum fault fault_of(enum call call, int fd, long *number) {
  if (getenv("DISK_FAULTS_DIRECTORY") == NULL) return NONE;
  char link[32], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return NONE;
  path[length] = 0;
  return fault_of_path(call, path, number);
}

static int fails(enum fault fault, long number) {
  if (fault == SLOW) {
    struct timespec time = {number / 1000, number % 1000 * 1000000};
    nanosleep(&time, NULL);
  }
  if (fault != EIO_FAULT && fault != ENOSPC_FAULT) return 0;
  errno = fault == EIO_FAULT ? EIO : ENOSPC;
  return 1;
}

static size_t half(size_t bytes) {
  return bytes < 2 ? bytes : bytes / 2;
}

/* Where this thread's last write was short: its next one there fails. */
static __thread int cut_short = -1;

static int follows_short(enum call call, int fd) {
  int follows = call == WRITE && cut_short == fd;
  if (follows) errno = EAGAIN;
  cut_short = -1;
  return follows;
}

/* The function as libc has it. */
#define LIBC(result, name, ...)                             \
  static result (*libc)(__VA_ARGS__);                       \
  if (libc == NULL) libc = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define POSITIONED(name, kind, buffer)                                               \
  ssize_t name(int fd, buffer bytes, size_t count, off_t at) {                       \
    LIBC(ssize_t, name, int, buffer, size_t, off_t);                                 \
    long number = 0;                                                                 \
    enum fault fault = fault_of(kind, fd, &number);                                  \
    if (follows_short(kind, fd) || fails(fault, number)) return -1;                  \
    if (fault != SHORT || count < 2) return libc(fd, bytes, count, at);              \
    if (kind == WRITE) cut_short = fd;                                               \
    return libc(fd, bytes, half(count), at);                                         \
  }
POSITIONED(pwrite, WRITE, const void *)
POSITIONED(pwrite64, WRITE, const void *)
POSITIONED(pread, READ, void *)
POSITIONED(pread64, READ, void *)

#define SEQUENTIAL(name, kind, buffer)                                               \
  ssize_t name(int fd, buffer bytes, size_t count) {                                 \
    LIBC(ssize_t, name, int, buffer, size_t);                                        \
    long number = 0;                                                                 \
    enum fault fault = fault_of(kind, fd, &number);                                  \
    if (fails(fault, number)) return -1;                                             \
    return libc(fd, bytes, fault == SHORT ? half(count) : count);                    \
  }
SEQUENTIAL(write, WRITE, const void *)
SEQUENTIAL(read, READ, void *)

/* Half of the first buffer, so that all that a short vector can leave is left. */
#define VECTOR(name, kind)                                                           \
  ssize_t name(int fd, const struct iovec *parts, int count, off_t at) {             \
    LIBC(ssize_t, name, int, const struct iovec *, int, off_t);                      \
    long number = 0;                                                                 \
    enum fault fault = fault_of(kind, fd, &number);                                  \
    if (follows_short(kind, fd) || fails(fault, number)) return -1;                  \
    if (fault != SHORT || count == 0) return libc(fd, parts, count, at);             \
    if (kind == WRITE) cut_short = fd;                                               \
    struct iovec first = {parts[0].iov_base, half(parts[0].iov_len)};                \
    return libc(fd, &first, 1, at);                                                  \
  }
VECTOR(pwritev, WRITE)
VECTOR(pwritev64, WRITE)
VECTOR(preadv, READ)
VECTOR(preadv64, READ)

#define SYNCING(name)                                                                \
  int name(int fd) {                                                                 \
    LIBC(int, name, int);                                                            \
    long number = 0;                                                                 \
    enum fault fault = fault_of(SYNC, fd, &number);                                  \
    return fails(fault, number) ? -1 : libc(fd);                                     \
  }
SYNCING(fsync)
SYNCING(fdatasync)

#define FILE_SYSTEM(name, structure)                                                 \
  int name(const char *path, struct structure *space) {                              \
    LIBC(int, name, const char *, struct structure *);                               \
    long number = 0;                                                                 \
    enum fault fault = fault_of_path(STAT, path, &number);                           \
    if (fails(fault, number)) return -1;                                             \
    int result = libc(path, space);                                                  \
    if (result == 0 && fault == FULL) space->f_bfree = space->f_bavail = 0;          \
    return result;                                                                   \
  }
FILE_SYSTEM(statfs, statfs)
FILE_SYSTEM(statfs64, statfs64)
