/* Lets a chosen file operation below one folder fail: preloaded into a process, armed by `arm`.
 *
 * Every call of the C library that names or uses a file below `root` gets a number, also in the processes that the command starts: they
 * count together. The one with the number `fail_at` (if `sticky`, every later one that changes the disk, too) fails with `fail_errno`.
 * Written to `log_fd` is what failed, or every call if none is to fail. Python, SQLite and the Rust of the tokenizers all go through these.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static long fail_at;
static int fail_errno, sticky, log_fd = -1;
static atomic_long *count;

/* In the process from which all others are forked: what they count is shared. */
void prepare(void) { count = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); }
void reset(void) { atomic_store(count, 0); }

void arm(const char *folder, long at, int error, int stays, int log) {
    snprintf(root, sizeof root, "%s", folder);
    fail_at = at, fail_errno = error, sticky = stays, log_fd = log;
    root_length = strlen(root);
}

static int below(const char *path) {
    return root_length && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* Count one operation; true if it has to fail, with errno set. */
static int fails(const char *operation, int changes, const char *path) {
    if (!below(path)) return 0;
    long number = atomic_fetch_add(count, 1) + 1;
    int failing = fail_at && (number == fail_at || (sticky && changes && number > fail_at));
    if (log_fd >= 0 && (failing || !fail_at)) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, operation, path);
        syscall(SYS_write, log_fd, line, length < (int)sizeof line ? length : (int)sizeof line);
    }
    if (!failing) return 0;
    errno = fail_errno;
    return 1;
}

static int link_target(int fd, char *target) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, target, PATH_MAX - 1);
    if (length < 0) return 0;
    target[length] = 0;
    return 1;
}

static int fails_at(const char *operation, int changes, int folder, const char *path) {
    char whole[2 * PATH_MAX], base[PATH_MAX];
    if (!root_length || !path) return 0;
    if (path[0] == '/') return fails(operation, changes, path);
    if (path[0] == 0 && folder >= 0) return link_target(folder, base) ? fails(operation, changes, base) : 0;
    if (folder == AT_FDCWD ? syscall(SYS_getcwd, base, sizeof base) < 0 : !link_target(folder, base)) return 0;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return fails(operation, changes, whole);
}

static int fails_fd(const char *operation, int changes, int fd) {
    char target[PATH_MAX];
    return root_length && fd != log_fd && fd > 2 && link_target(fd, target) ? fails(operation, changes, target) : 0;
}

#define REAL(name) ({ static typeof(&name) real; if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name); real; })

static const char *opening(int flags) { return flags & O_CREAT ? "create" : (flags & O_ACCMODE) == O_RDONLY ? "open" : "open-to-write"; }
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }
#define OPEN(name) int name(const char *path, int flags, ...) { MODE(flags) \
    return fails_at(opening(flags), !!(flags & O_CREAT), AT_FDCWD, path) ? -1 : REAL(name)(path, flags, mode); }
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { MODE(flags) \
    return fails_at(opening(flags), !!(flags & O_CREAT), folder, path) ? -1 : REAL(name)(folder, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

#define STAT(name, kind) int name(const char *path, struct kind *found) { \
    return fails_at("stat", 0, AT_FDCWD, path) ? -1 : REAL(name)(path, found); }
STAT(stat, stat) STAT(stat64, stat64) STAT(lstat, stat) STAT(lstat64, stat64)
int fstatat(int f, const char *path, struct stat *found, int flags) { return fails_at("stat", 0, f, path) ? -1 : REAL(fstatat)(f, path, found, flags); }
int fstatat64(int f, const char *path, struct stat64 *found, int flags) { return fails_at("stat", 0, f, path) ? -1 : REAL(fstatat64)(f, path, found, flags); }
int statx(int f, const char *path, int flags, unsigned mask, struct statx *found) { return fails_at("stat", 0, f, path) ? -1 : REAL(statx)(f, path, flags, mask, found); }
int access(const char *path, int mode) { return fails_at("stat", 0, AT_FDCWD, path) ? -1 : REAL(access)(path, mode); }
DIR *opendir(const char *path) { return fails_at("list", 0, AT_FDCWD, path) ? NULL : REAL(opendir)(path); }
int mkdir(const char *path, mode_t mode) { return fails_at("mkdir", 1, AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int f, const char *path, mode_t mode) { return fails_at("mkdir", 1, f, path) ? -1 : REAL(mkdirat)(f, path, mode); }
int rename(const char *from, const char *to) { return fails_at("rename", 1, AT_FDCWD, from) ? -1 : REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { return fails_at("rename", 1, a, from) ? -1 : REAL(renameat)(a, from, b, to); }
int unlink(const char *path) { return fails_at("unlink", 1, AT_FDCWD, path) ? -1 : REAL(unlink)(path); }
int unlinkat(int f, const char *path, int flags) { return fails_at("unlink", 1, f, path) ? -1 : REAL(unlinkat)(f, path, flags); }
int rmdir(const char *path) { return fails_at("unlink", 1, AT_FDCWD, path) ? -1 : REAL(rmdir)(path); }
ssize_t read(int fd, void *to, size_t n) { return fails_fd("read", 0, fd) ? -1 : REAL(read)(fd, to, n); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at) { return fails_fd("read", 0, fd) ? -1 : REAL(pread64)(fd, to, n, at); }
ssize_t pread(int fd, void *to, size_t n, off_t at) { return fails_fd("read", 0, fd) ? -1 : REAL(pread)(fd, to, n, at); }
ssize_t write(int fd, const void *from, size_t n) { return fails_fd("write", 1, fd) ? -1 : REAL(write)(fd, from, n); }
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) { return fails_fd("write", 1, fd) ? -1 : REAL(pwrite64)(fd, from, n, at); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) { return fails_fd("write", 1, fd) ? -1 : REAL(pwrite)(fd, from, n, at); }
int fsync(int fd) { return fails_fd("sync", 1, fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_fd("sync", 1, fd) ? -1 : REAL(fdatasync)(fd); }
int ftruncate64(int fd, off64_t n) { return fails_fd("write", 1, fd) ? -1 : REAL(ftruncate64)(fd, n); }
int flock(int fd, int how) { return fails_fd("lock", 0, fd) ? -1 : REAL(flock)(fd, how); }
