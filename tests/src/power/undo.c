/* A disk that forgets: preloaded into a process, it keeps beside each file what the file held before every write that was not synced yet.
 *
 * UNDO_DIR names a directory. Before a write or truncation of a regular file under UNDO_UNDER a record is appended to
 * UNDO_DIR/{inode}-{time of its making}: offset and length of what is overwritten, the length that the file had, and those bytes. When fsync or fdatasync
 * of the file has ended well, the record is emptied. So whoever puts the records back, last first, after the process was killed, has the
 * file as a machine may have it that lost its power: with what was synced, and nothing else. (A real disk may keep more.)
 *
 * Names are as durable as the system has them: creating, renaming and removing files is not undone. Writes through other calls than these
 * (mmap, copy_file_range, io_uring) are not seen, and so count as durable.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct record {
    uint64_t offset, length, size;
};

static const char *dir, *under;
static size_t under_length;
/* A write must not come between a sync and the emptying of its record; per file, by a part of its number. */
static pthread_mutex_t locks[64];

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void begin(void) {
    real_write = REAL(write);
    real_writev = REAL(writev);
    real_pwrite = REAL(pwrite64);
    real_ftruncate = REAL(ftruncate64);
    real_fsync = REAL(fsync);
    real_fdatasync = REAL(fdatasync);
    for (size_t i = 0; i < sizeof locks / sizeof *locks; i++) pthread_mutex_init(&locks[i], NULL);
    under = getenv("UNDO_UNDER");
    under_length = under ? strlen(under) : 0;
    dir = under ? getenv("UNDO_DIR") : NULL;
}

/* A disk that cannot be simulated must not look like one that keeps everything. */
static void give_up(const char *what) {
    fprintf(stderr, "undo: %s: %s\n", what, strerror(errno));
    abort();
}

/* Whether the file is one of those watched; its record's path, and its lock, locked. */
static pthread_mutex_t *watched(int fd, struct stat *at, char path[PATH_MAX]) {
    char link[64], name[PATH_MAX];
    if (!dir || fstat(fd, at) != 0 || !S_ISREG(at->st_mode)) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < (ssize_t)under_length || memcmp(name, under, under_length) != 0) return NULL;
    /* An inode's number is used again; not within the same microsecond. */
    struct statx made;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &made) != 0) give_up("ask when a file was made");
    snprintf(path, PATH_MAX, "%s/%llx-%llx-%x", dir, (unsigned long long)made.stx_ino, (unsigned long long)made.stx_btime.tv_sec,
             (unsigned)made.stx_btime.tv_nsec);
    pthread_mutex_t *lock = &locks[at->st_ino % (sizeof locks / sizeof *locks)];
    pthread_mutex_lock(lock);
    /* Its length may have changed while the lock was waited for. */
    if (fstat(fd, at) != 0) give_up("look at a file again");
    return lock;
}

/* Remembers what a write of `length` bytes at `offset` is about to overwrite. */
static void remember(int fd, const struct stat *at, const char *path, uint64_t offset, uint64_t length) {
    uint64_t size = (uint64_t)at->st_size;
    uint64_t kept = offset >= size ? 0 : (offset + length > size ? size - offset : length);
    char *bytes = malloc(sizeof(struct record) + kept);
    if (!bytes) give_up("take memory");
    struct record record = {offset, kept, size};
    memcpy(bytes, &record, sizeof record);
    /* The descriptor may not be open for reading. */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (kept > 0) {
        int reader = open(link, O_RDONLY | O_CLOEXEC);
        if (reader < 0) give_up("open what is overwritten");
        for (uint64_t done = 0; done < kept;) {
            ssize_t got = pread(reader, bytes + sizeof record + done, kept - done, (off_t)(offset + done));
            if (got <= 0) give_up("read what is overwritten");
            done += (uint64_t)got;
        }
        close(reader);
    }
    int undo = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (undo < 0) give_up("open a record");
    /* In one call: a process that is killed leaves it whole or not at all, as far as a memory file system is asked. */
    if (real_write(undo, bytes, sizeof record + kept) != (ssize_t)(sizeof record + kept)) give_up("write a record");
    close(undo);
    free(bytes);
}

/* Where a write through the descriptor's own place goes. */
static uint64_t place(int fd, const struct stat *at) {
    if (fcntl(fd, F_GETFL) & O_APPEND) return (uint64_t)at->st_size;
    off_t here = lseek(fd, 0, SEEK_CUR);
    if (here < 0) give_up("ask for the place in a file");
    return (uint64_t)here;
}

#define WATCHED(fd, OFFSET, LENGTH, CALL)                          \
    struct stat at;                                                \
    char path[PATH_MAX];                                           \
    pthread_mutex_t *lock = watched(fd, &at, path);                \
    if (lock) remember(fd, &at, path, OFFSET, LENGTH);             \
    __typeof__(CALL) done = CALL;                                  \
    int error = errno;                                             \
    if (lock) pthread_mutex_unlock(lock);                          \
    errno = error;                                                 \
    return done

ssize_t write(int fd, const void *bytes, size_t length) {
    WATCHED(fd, place(fd, &at), length, real_write(fd, bytes, length));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    uint64_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    WATCHED(fd, place(fd, &at), length, real_writev(fd, parts, count));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    WATCHED(fd, (uint64_t)offset, length, real_pwrite(fd, bytes, length, offset));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return pwrite64(fd, bytes, length, offset);
}

int ftruncate64(int fd, off_t length) {
    /* What is cut off. A file that grows loses nothing but its length. */
    WATCHED(fd, (uint64_t)length, (uint64_t)(at.st_size > length ? at.st_size - length : 0), real_ftruncate(fd, length));
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(int fd, int (*sync)(int)) {
    struct stat at;
    char path[PATH_MAX];
    pthread_mutex_t *lock = watched(fd, &at, path);
    int done = sync(fd);
    int error = errno;
    if (lock) {
        if (done == 0 && truncate(path, 0) != 0 && errno != ENOENT) give_up("empty a record");
        pthread_mutex_unlock(lock);
    }
    errno = error;
    return done;
}

int fsync(int fd) { return synced(fd, real_fsync); }

int fdatasync(int fd) { return synced(fd, real_fdatasync); }
