/* Counts the calls by which one process changes files under one folder, and disturbs the n-th of them.
 *
 * Loaded with LD_PRELOAD and armed by faults_arm() in the process that is to be disturbed. A worker that this process
 * starts, and every file elsewhere, is left alone. What glibc writes from inside itself (fclose of a stream) and what
 * goes through a memory map cannot be seen here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, KILL = 1, KILL_HALFWAY = 2, FAIL = 3 };

static volatile pid_t armed; /* process that is watched; 0: none */
static char watched[PATH_MAX];
static size_t watched_length;
static long disturbed; /* number of the call, from 1 */
static int mode, failure, log_file;
static volatile long calls;
static char phase[32];

void faults_arm(const char *folder, long number, int what, int error, int log)
{
    snprintf(watched, sizeof watched, "%s", folder);
    watched_length = strlen(watched);
    disturbed = number;
    mode = what;
    failure = error;
    log_file = log;
    calls = 0;
    armed = getpid();
}

void faults_phase(const char *name)
{
    snprintf(phase, sizeof phase, "%s", name);
}

static int below(const char *path)
{
    return strncmp(path, watched, watched_length) == 0 && (path[watched_length] == '/' || path[watched_length] == 0);
}

static int path_of(int descriptor, char *path)
{
    char link[64];
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

static int path_at(int folder, const char *name, char *path)
{
    char base[PATH_MAX];
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return below(path);
    }
    if (folder == AT_FDCWD) {
        if (!getcwd(base, sizeof base))
            return 0;
    } else {
        path_of(folder, base);
    }
    if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX)
        return 0;
    return below(path);
}

/* Count one call on a path that is watched. Return 0: go on; 1: do half of it, then die; -1: fail, errno is set. */
static int counted(const char *name, const char *path, size_t size, int takes_space)
{
    long number = __sync_add_and_fetch(&calls, 1);
    if (log_file >= 0) {
        char line[PATH_MAX + 128];
        int length = snprintf(line, sizeof line, "%ld\t%s\t%s\t%zu\t%s\n", number, phase, name, size, path);
        syscall(SYS_write, log_file, line, (size_t)length);
    }
    if (mode == KILL && number == disturbed)
        kill(getpid(), SIGKILL);
    if (mode == KILL_HALFWAY && number == disturbed) {
        if (size > 1)
            return 1;
        kill(getpid(), SIGKILL);
    }
    if (mode == FAIL && number >= disturbed && (takes_space || (failure != ENOSPC && failure != EDQUOT))) {
        errno = failure;
        return -1;
    }
    return 0;
}

static int watching(void)
{
    return armed && armed == getpid();
}

static void die(void)
{
    kill(getpid(), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

#define ON_DESCRIPTOR(type, name, parameters, arguments, size, takes_space, half)                                      \
    type name parameters                                                                                               \
    {                                                                                                                  \
        static __typeof__(&name) next;                                                                                 \
        char path[PATH_MAX];                                                                                           \
        if (!next)                                                                                                     \
            next = REAL(name);                                                                                         \
        if (watching() && path_of(descriptor, path)) {                                                                 \
            int told = counted(#name, path, (size_t)(size), takes_space);                                              \
            if (told < 0)                                                                                              \
                return -1;                                                                                             \
            if (told > 0) {                                                                                            \
                half;                                                                                                  \
                die();                                                                                                 \
            }                                                                                                          \
        }                                                                                                              \
        return next arguments;                                                                                         \
    }

ON_DESCRIPTOR(ssize_t, write, (int descriptor, const void *bytes, size_t n), (descriptor, bytes, n), n, 1,
              next(descriptor, bytes, n / 2))
ON_DESCRIPTOR(ssize_t, pwrite, (int descriptor, const void *bytes, size_t n, off_t at), (descriptor, bytes, n, at), n,
              1, next(descriptor, bytes, n / 2, at))
ON_DESCRIPTOR(ssize_t, pwrite64, (int descriptor, const void *bytes, size_t n, off64_t at), (descriptor, bytes, n, at),
              n, 1, next(descriptor, bytes, n / 2, at))
ON_DESCRIPTOR(ssize_t, writev, (int descriptor, const struct iovec *parts, int n), (descriptor, parts, n), n, 1,
              next(descriptor, parts, n / 2))
ON_DESCRIPTOR(ssize_t, pwritev, (int descriptor, const struct iovec *parts, int n, off_t at),
              (descriptor, parts, n, at), n, 1, next(descriptor, parts, n / 2, at))
ON_DESCRIPTOR(int, ftruncate, (int descriptor, off_t size), (descriptor, size), 0, 0, )
ON_DESCRIPTOR(int, ftruncate64, (int descriptor, off64_t size), (descriptor, size), 0, 0, )
ON_DESCRIPTOR(int, fallocate, (int descriptor, int how, off_t at, off_t n), (descriptor, how, at, n), 0, 1, )
ON_DESCRIPTOR(int, fallocate64, (int descriptor, int how, off64_t at, off64_t n), (descriptor, how, at, n), 0, 1, )
ON_DESCRIPTOR(int, fsync, (int descriptor), (descriptor), 0, 0, )
ON_DESCRIPTOR(int, fdatasync, (int descriptor), (descriptor), 0, 0, )

/* These two return the error instead of setting errno. */
#define ALLOCATE(name, offset)                                                                                         \
    int name(int descriptor, offset at, offset n)                                                                      \
    {                                                                                                                  \
        static __typeof__(&name) next;                                                                                 \
        char path[PATH_MAX];                                                                                           \
        if (!next)                                                                                                     \
            next = REAL(name);                                                                                         \
        if (watching() && path_of(descriptor, path) && counted(#name, path, 0, 1) < 0)                                 \
            return errno;                                                                                              \
        return next(descriptor, at, n);                                                                                \
    }

ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

ssize_t sendfile(int descriptor, int from, off_t *at, size_t n)
{
    static ssize_t (*next)(int, int, off_t *, size_t);
    char path[PATH_MAX];
    if (!next)
        next = (__typeof__(next))real("sendfile");
    if (watching() && path_of(descriptor, path) && counted("sendfile", path, 0, 1) < 0)
        return -1;
    return next(descriptor, from, at, n);
}

ssize_t copy_file_range(int from, off64_t *from_at, int descriptor, off64_t *at, size_t n, unsigned how)
{
    static __typeof__(&copy_file_range) next;
    char path[PATH_MAX];
    if (!next)
        next = REAL(copy_file_range);
    if (watching() && path_of(descriptor, path) && counted("copy_file_range", path, 0, 1) < 0)
        return -1;
    return next(from, from_at, descriptor, at, n, how);
}

size_t fwrite(const void *bytes, size_t size, size_t n, FILE *stream)
{
    static __typeof__(&fwrite) next;
    char path[PATH_MAX];
    if (!next)
        next = REAL(fwrite);
    if (watching() && path_of(fileno(stream), path)) {
        int told = counted("fwrite", path, size * n, 1);
        if (told < 0)
            return 0;
        if (told > 0) {
            next(bytes, 1, size * n / 2, stream);
            fflush(stream);
            die();
        }
    }
    return next(bytes, size, n, stream);
}

int msync(void *start, size_t n, int how)
{
    static __typeof__(&msync) next;
    if (!next)
        next = REAL(msync);
    if (watching() && counted("msync", watched, 0, 0) < 0)
        return -1;
    return next(start, n, how);
}

#define ON_PATH(name, parameters, arguments, folder, file, takes_space)                                                \
    int name parameters                                                                                                \
    {                                                                                                                  \
        static __typeof__(&name) next;                                                                                 \
        char path[PATH_MAX];                                                                                           \
        if (!next)                                                                                                     \
            next = REAL(name);                                                                                         \
        if (watching() && path_at(folder, file, path) && counted(#name, path, 0, takes_space) < 0)                     \
            return -1;                                                                                                 \
        return next arguments;                                                                                         \
    }

ON_PATH(rename, (const char *from, const char *to), (from, to), AT_FDCWD, to, 0)
ON_PATH(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), b, to, 0)
ON_PATH(renameat2, (int a, const char *from, int b, const char *to, unsigned how), (a, from, b, to, how), b, to, 0)
ON_PATH(link, (const char *from, const char *to), (from, to), AT_FDCWD, to, 1)
ON_PATH(linkat, (int a, const char *from, int b, const char *to, int how), (a, from, b, to, how), b, to, 1)
ON_PATH(unlink, (const char *name), (name), AT_FDCWD, name, 0)
ON_PATH(unlinkat, (int folder, const char *name, int how), (folder, name, how), folder, name, 0)
ON_PATH(rmdir, (const char *name), (name), AT_FDCWD, name, 0)
ON_PATH(mkdir, (const char *name, mode_t rights), (name, rights), AT_FDCWD, name, 1)
ON_PATH(truncate, (const char *name, off_t size), (name, size), AT_FDCWD, name, 0)

/* Opening changes a file where it creates or empties one. */
#define OPEN(name, parameters, last, arguments, folder)                                                                \
    int name parameters                                                                                                \
    {                                                                                                                  \
        static __typeof__(&name) next;                                                                                 \
        char path[PATH_MAX];                                                                                           \
        mode_t rights = 0;                                                                                             \
        if (!next)                                                                                                     \
            next = REAL(name);                                                                                         \
        if (how & (O_CREAT | O_TMPFILE)) {                                                                             \
            va_list more;                                                                                              \
            va_start(more, last);                                                                                      \
            rights = va_arg(more, mode_t);                                                                             \
            va_end(more);                                                                                              \
        }                                                                                                              \
        if ((how & (O_CREAT | O_TRUNC)) && watching() && path_at(folder, file, path) &&                                \
            counted(#name, path, 0, 1) < 0)                                                                            \
            return -1;                                                                                                 \
        return next arguments;                                                                                         \
    }

OPEN(open, (const char *file, int how, ...), how, (file, how, rights), AT_FDCWD)
OPEN(open64, (const char *file, int how, ...), how, (file, how, rights), AT_FDCWD)
OPEN(openat, (int folder, const char *file, int how, ...), how, (folder, file, how, rights), folder)
OPEN(openat64, (int folder, const char *file, int how, ...), how, (folder, file, how, rights), folder)

#define STREAM(name)                                                                                                   \
    FILE *name(const char *file, const char *how)                                                                      \
    {                                                                                                                  \
        static __typeof__(&name) next;                                                                                 \
        char path[PATH_MAX];                                                                                           \
        if (!next)                                                                                                     \
            next = REAL(name);                                                                                         \
        if ((how[0] == 'w' || how[0] == 'a') && watching() && path_at(AT_FDCWD, file, path) &&                         \
            counted(#name, path, 0, 1) < 0)                                                                            \
            return NULL;                                                                                               \
        return next(file, how);                                                                                        \
    }

STREAM(fopen)
STREAM(fopen64)
