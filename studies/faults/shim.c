/* Loaded before everything else, it fails the n-th call that would change something below a folder: of Python as of DuckDB. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COUNT, KILL, TORN, FAIL_EIO, FAIL_FULL, STAYS_FULL };

static char root[PATH_MAX];
static atomic_long calls;
static long chosen;
static int action;

void fault_arm(const char *folder, long n, int what) {
    chosen = n;
    action = what;
    atomic_store(&calls, 0);
    snprintf(root, sizeof root, "%s", folder);
}

long fault_count(void) { return atomic_load(&calls); }

static int below(const char *path) {
    char full[PATH_MAX * 2], here[PATH_MAX];
    if (!root[0] || !path) return 0;
    if (path[0] != '/' && getcwd(here, sizeof here)) snprintf(full, sizeof full, "%s/%s", here, path);
    else snprintf(full, sizeof full, "%s", path);
    return !strncmp(full, root, strlen(root));
}

static int below_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* What becomes of this call: 0 it is made, 1 it fails, 2 half of it is made before the process dies. */
static int fate(void) {
    long n = atomic_fetch_add(&calls, 1) + 1;
    if (action == STAYS_FULL ? n < chosen : n != chosen) return 0;
    switch (action) {
        case KILL: die(); break;
        case TORN: return 2;
        case FAIL_EIO: errno = EIO; return 1;
        case FAIL_FULL: case STAYS_FULL: errno = ENOSPC; return 1;
    }
    return 0;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
/* A disk that stays full lets go of what is removed. */
#define PLAIN(result, name, inside, frees, args, ...)                        \
    result name args {                                                       \
        REAL(name);                                                          \
        if ((inside) && !((frees) && action == STAYS_FULL)) {                \
            int what = fate();                                               \
            if (what == 1) return -1;                                        \
            if (what == 2) { real(__VA_ARGS__); die(); }                     \
        }                                                                    \
        return real(__VA_ARGS__);                                            \
    }
#define WRITE(name, args, length, ...)                                       \
    ssize_t name args {                                                      \
        REAL(name);                                                          \
        if (below_fd(fd)) {                                                  \
            int what = fate();                                               \
            if (what == 1) return -1;                                        \
            if (what == 2) { length /= 2; real(__VA_ARGS__); die(); }        \
        }                                                                    \
        return real(__VA_ARGS__);                                            \
    }

WRITE(write, (int fd, const void *data, size_t length), length, fd, data, length)
WRITE(pwrite, (int fd, const void *data, size_t length, off_t at), length, fd, data, length, at)
WRITE(pwrite64, (int fd, const void *data, size_t length, off64_t at), length, fd, data, length, at)
ssize_t sendfile(int fd, int from, off_t *at, size_t length);
WRITE(sendfile, (int fd, int from, off_t *at, size_t length), length, fd, from, at, length)
ssize_t sendfile64(int fd, int from, off64_t *at, size_t length);
WRITE(sendfile64, (int fd, int from, off64_t *at, size_t length), length, fd, from, at, length)
PLAIN(int, fsync, below_fd(fd), 0, (int fd), fd)
PLAIN(int, fdatasync, below_fd(fd), 0, (int fd), fd)
PLAIN(int, ftruncate, below_fd(fd), 0, (int fd, off_t length), fd, length)
PLAIN(int, ftruncate64, below_fd(fd), 0, (int fd, off64_t length), fd, length)
PLAIN(int, rename, below(to), 0, (const char *from, const char *to), from, to)
PLAIN(int, link, below(to), 0, (const char *from, const char *to), from, to)
PLAIN(int, mkdir, below(path), 0, (const char *path, mode_t mode), path, mode)
PLAIN(int, rmdir, below(path), 1, (const char *path), path)
PLAIN(int, unlink, below(path), 1, (const char *path), path)

#define OPEN(name)                                                           \
    int name(const char *path, int flags, ...) {                             \
        REAL(name);                                                          \
        mode_t mode = 0;                                                     \
        if (flags & O_CREAT) {                                               \
            va_list rest;                                                    \
            va_start(rest, flags);                                           \
            mode = va_arg(rest, mode_t);                                     \
            va_end(rest);                                                    \
        }                                                                    \
        if ((flags & O_CREAT) && below(path)) {                              \
            int what = fate();                                               \
            if (what == 1) return -1;                                        \
            if (what == 2) { real(path, flags, mode); die(); }               \
        }                                                                    \
        return real(path, flags, mode);                                      \
    }
OPEN(open)
OPEN(open64)
