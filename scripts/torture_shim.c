/* Preloaded by torture.py: counts the calls that change files below a folder, and at the n-th one
 * kills the process or lets the call fail. Inert until `torture_arm` is called. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT, KILL_BEFORE, KILL_HALF, KILL_AFTER, FULL_FROM, FAIL_ONCE };

static char folder[PATH_MAX];
static int mode = -1;
static long at, calls;

void torture_arm(const char *path, int what, long number) {
    snprintf(folder, sizeof folder, "%s", path);
    calls = 0;
    at = number;
    mode = what;
}

long torture_calls(void) { return calls; }

static int inside_path(int place, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (mode < 0 || !path) return 0;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char base[PATH_MAX] = "";
        snprintf(link, sizeof link, place == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", place);
        if (readlink(link, base, sizeof base - 1) < 0) return 0;
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    return strncmp(whole, folder, strlen(folder)) == 0;
}

static int inside_file(int file) {
    char link[64], path[PATH_MAX] = "";
    if (mode < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    if (readlink(link, path, sizeof path - 1) < 0) return 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

/* Counts; 1 where the call has to fail. `takes_space`: a full disk refuses it. */
static int before(int takes_space) {
    calls++;
    if (mode == KILL_BEFORE && calls == at) kill(getpid(), SIGKILL);
    if (mode == FULL_FROM && calls >= at && takes_space) { errno = ENOSPC; return 1; }
    if (mode == FAIL_ONCE && calls == at) { errno = EIO; return 1; }
    return 0;
}

static void after(void) {
    if (mode >= 0 && (mode == KILL_AFTER || mode == KILL_HALF) && calls == at)
        kill(getpid(), SIGKILL);
}

#define REAL(type, name, ...)                                   \
    static type (*real)(__VA_ARGS__);                           \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define PATH_CALL(name, takes_space, place, path, types, values)                        \
    int name types {                                                                    \
        static int (*real) types;                                                       \
        if (!real) real = (int (*) types)dlsym(RTLD_NEXT, #name);                        \
        int counted = inside_path(place, path);                                         \
        if (counted && before(takes_space)) return -1;                                  \
        int result = real values;                                                       \
        if (counted) after();                                                           \
        return result;                                                                  \
    }

PATH_CALL(mkdir, 1, AT_FDCWD, path, (const char *path, mode_t bits), (path, bits))
PATH_CALL(rename, 0, AT_FDCWD, new, (const char *old, const char *new), (old, new))
PATH_CALL(renameat, 0, to, new, (int from, const char *old, int to, const char *new), (from, old, to, new))
PATH_CALL(unlink, 0, AT_FDCWD, path, (const char *path), (path))
PATH_CALL(rmdir, 0, AT_FDCWD, path, (const char *path), (path))
PATH_CALL(unlinkat, 0, place, path, (int place, const char *path, int flags), (place, path, flags))

#define OPEN_CALL(name, place, types, real_types, ...)                                  \
    int name types {                                                                    \
        static int (*real) real_types;                                                  \
        if (!real) real = (int (*) real_types)dlsym(RTLD_NEXT, #name);                   \
        mode_t bits = 0;                                                                \
        if (flags & (O_CREAT | O_TMPFILE)) {                                            \
            va_list more;                                                               \
            va_start(more, flags);                                                      \
            bits = va_arg(more, mode_t);                                                \
            va_end(more);                                                               \
        }                                                                               \
        int counted = (flags & (O_CREAT | O_WRONLY | O_RDWR)) && inside_path(place, path); \
        if (counted && before(flags & O_CREAT)) return -1;                              \
        int result = real(__VA_ARGS__, flags, bits);                                    \
        if (counted) after();                                                           \
        return result;                                                                  \
    }

OPEN_CALL(open, AT_FDCWD, (const char *path, int flags, ...), (const char *, int, ...), path)
OPEN_CALL(open64, AT_FDCWD, (const char *path, int flags, ...), (const char *, int, ...), path)
OPEN_CALL(openat, place, (int place, const char *path, int flags, ...),
          (int, const char *, int, ...), place, path)
OPEN_CALL(openat64, place, (int place, const char *path, int flags, ...),
          (int, const char *, int, ...), place, path)

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    int counted = inside_file(file);
    if (counted && before(1)) return -1;
    if (counted && mode == KILL_HALF && calls == at) size /= 2;
    ssize_t result = real(file, data, size);
    if (counted) after();
    return result;
}

int fsync(int file) {
    REAL(int, fsync, int);
    int counted = inside_file(file);
    if (counted && before(1)) return -1;
    int result = real(file);
    if (counted) after();
    return result;
}
