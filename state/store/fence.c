// The calls by which libraft writes its log, as this program has them: each does what the
// library's own does, and notes the first that the disk refuses. From then on all of them
// fail for the directory it happened in. See fence.go for why.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <uv.h>

#include "fence.h"

enum { most = 256, longest = 4096 };

// A fence stands around one directory. error is zero until the disk refuses a write; while
// holding is set, who is refused then waits instead of being told so.
static struct fence {
	char dir[longest];
	size_t length;
	int error, holding, reserve;
} fences[most];

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; // guards fences
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static atomic_int standing;                              // how many are set up
static atomic_int raised;                                // how many have an error

int fence_open(const char *dir, int reserve) {
	size_t length = strlen(dir);
	if (length >= longest) return -1;
	pthread_mutex_lock(&mutex);
	int at = 0;
	while (at < most && fences[at].length > 0) at++;
	if (at < most) {
		struct fence *f = &fences[at];
		memcpy(f->dir, dir, length + 1);
		f->length = length;
		f->error = f->holding = 0;
		f->reserve = reserve;
		atomic_fetch_add(&standing, 1);
	}
	pthread_mutex_unlock(&mutex);
	return at < most ? at : -1;
}

// count brings raised up to date; mutex is held.
static void count(void) {
	int n = 0;
	for (int i = 0; i < most; i++)
		if (fences[i].length > 0 && fences[i].error) n++;
	atomic_store(&raised, n);
}

void fence_close(int at) {
	pthread_mutex_lock(&mutex);
	fences[at].length = 0;
	atomic_fetch_sub(&standing, 1);
	count();
	pthread_mutex_unlock(&mutex);
}

void fence_hold(int at, int holding) {
	pthread_mutex_lock(&mutex);
	fences[at].holding = holding;
	pthread_cond_broadcast(&released);
	pthread_mutex_unlock(&mutex);
}

int fence_error(int at) {
	pthread_mutex_lock(&mutex);
	int error = fences[at].error;
	pthread_mutex_unlock(&mutex);
	return error;
}

// around returns the fence around a path, or NULL; mutex is held.
static struct fence *around(const char *path) {
	for (int i = 0; i < most; i++) {
		struct fence *f = &fences[i];
		if (f->length > 0 && strncmp(path, f->dir, f->length) == 0 && (path[f->length] == '/' || path[f->length] == 0)) return f;
	}
	return NULL;
}

// path_of writes the path of an open file.
static int path_of(int fd, char *path) {
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, longest - 1);
	path[n > 0 ? n : 0] = 0;
	return n > 0;
}

// refused returns the error with which a write to the path must fail, or zero.
static int refused(const char *path) {
	pthread_mutex_lock(&mutex);
	struct fence *f = around(path);
	int error = 0;
	if (f != NULL) error = f->error;
	pthread_mutex_unlock(&mutex);
	return error;
}

static int refused_file(int fd) {
	char path[longest];
	int before = errno, error = 0;
	if (atomic_load(&raised) > 0 && path_of(fd, path)) error = refused(path);
	errno = before;
	return error;
}

static int refused_path(const char *path) { return atomic_load(&raised) > 0 ? refused(path) : 0; }

// Other errors are part of how libraft finds out what the file system can do.
static int of_the_disk(int error) {
	switch (error) {
	case EIO: case ENOSPC: case EDQUOT: case EROFS: case ENXIO: case ENODEV: case ENOMEDIUM: case ESTALE: case EUCLEAN: case EBADMSG: case EREMOTEIO: case ETIMEDOUT:
		return 1;
	}
	return 0;
}

static void note(const char *path, int error) {
	if (!of_the_disk(error)) return;
	pthread_mutex_lock(&mutex);
	struct fence *f = around(path);
	if (f != NULL && f->error == 0) f->error = error;
	count();
	pthread_mutex_unlock(&mutex);
}

// wait_file waits as long as the fence around a file holds those that were refused. It is
// called from the threads that do the slow work, never from the one that libraft thinks in.
static void wait_file(int fd) {
	char path[longest];
	int before = errno;
	if (atomic_load(&raised) > 0 && path_of(fd, path)) {
		pthread_mutex_lock(&mutex);
		for (struct fence *f = around(path); f != NULL && f->error && f->holding; f = around(path))
			pthread_cond_wait(&released, &mutex);
		pthread_mutex_unlock(&mutex);
	}
	errno = before;
}

static void note_file(int fd, int error) {
	char path[longest];
	int before = errno;
	if (atomic_load(&standing) > 0 && of_the_disk(error) && path_of(fd, path)) note(path, error);
	errno = before;
}

// give_up empties the reserve of the directory that a file is in, and says whether that
// made room.
static int give_up(int fd) {
	char path[longest];
	int given = 0;
	if (atomic_load(&standing) == 0 || !path_of(fd, path)) return 0;
	pthread_mutex_lock(&mutex);
	struct fence *f = around(path);
	if (f != NULL && f->reserve >= 0) given = lseek(f->reserve, 0, SEEK_END) > 0 && ftruncate(f->reserve, 0) == 0;
	pthread_mutex_unlock(&mutex);
	return given;
}

// next finds the library's own function once.
#define next(name, result, ...)                                                     \
	static result (*_Atomic real)(__VA_ARGS__);                                     \
	if (real == NULL) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int posix_fallocate(int fd, off_t offset, off_t length) {
	next("posix_fallocate", int, int, off_t, off_t);
	int error = refused_file(fd);
	if (error == 0) {
		error = real(fd, offset, length);
		if (error == ENOSPC && give_up(fd)) error = real(fd, offset, length);
		note_file(fd, error);
	}
	if (error) wait_file(fd);
	return error;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
	next("pwrite", ssize_t, int, const void *, size_t, off_t);
	int error = refused_file(fd);
	if (error) {
		errno = error;
		return -1;
	}
	ssize_t n = real(fd, data, size, offset);
	if (n < 0) note_file(fd, errno);
	return n;
}

static int writes(struct iocb *cb) { return cb->aio_lio_opcode == IOCB_CMD_PWRITE || cb->aio_lio_opcode == IOCB_CMD_PWRITEV; }

// nowhere takes the writes that are refused. libraft waits without end, also when it is
// closed, for a write that could not be submitted; so it is submitted, elsewhere, and said
// to have failed when it ends.
static int nowhere(void) {
	static atomic_int fd = -1;
	if (atomic_load(&fd) < 0) {
		int opened = open("/dev/null", O_WRONLY | O_CLOEXEC), none = -1;
		if (opened >= 0 && !atomic_compare_exchange_strong(&fd, &none, opened)) close(opened);
	}
	return atomic_load(&fd);
}

static void divert(struct iocb *cb) {
	cb->aio_fildes = (unsigned int)nowhere();
	cb->aio_rw_flags = 0;
}

// wanted is how many bytes a request is to write.
static long wanted(struct iocb *cb) {
	if (cb->aio_lio_opcode != IOCB_CMD_PWRITEV) return cb->aio_lio_opcode == IOCB_CMD_PWRITE ? (long)cb->aio_nbytes : 0;
	struct iovec *parts = (struct iovec *)(uintptr_t)cb->aio_buf;
	long size = 0;
	for (unsigned long i = 0; i < cb->aio_nbytes; i++) size += (long)parts[i].iov_len;
	return size;
}

// in_loop says that a request was made by the thread that libraft thinks in, which hears
// of its end by an event. EAGAIN has libraft make it again in another thread.
static int in_loop(struct iocb *cb) { return cb->aio_flags & IOCB_FLAG_RESFD; }

// submit begins libraft's writes.
static long submit(long (*real)(long, ...), aio_context_t context, long n, struct iocb **requests) {
	for (long i = 0; i < n; i++) {
		if (!writes(requests[i]) || !refused_file((int)requests[i]->aio_fildes)) continue;
		if (in_loop(requests[i])) {
			errno = EAGAIN;
			return -1;
		}
		wait_file((int)requests[i]->aio_fildes);
		divert(requests[i]);
	}
	long result = real(SYS_io_submit, context, n, requests);
	if (result >= 0 || n == 0 || !writes(requests[0]) || !of_the_disk(errno)) return result;
	note_file((int)requests[0]->aio_fildes, errno);
	return submit(real, context, n, requests);
}

// ended looks at how a write ended.
static void ended(struct io_event *event) {
	struct iocb *cb = (struct iocb *)(uintptr_t)event->obj;
	if (!writes(cb)) return;
	int fd = (int)cb->aio_fildes;
	if (fd == nowhere()) {
		event->res = -EIO;
		return;
	}
	if (event->res >= wanted(cb)) return;
	int error = event->res < 0 ? (int)-event->res : EIO;
	if (!of_the_disk(error)) return;
	note_file(fd, error);
	if (in_loop(cb)) {
		event->res = -EAGAIN;
		return;
	}
	wait_file(fd);
	event->res = -EIO;
}

// syscall is how libraft submits its writes and hears how they ended.
long syscall(long number, ...) {
	next("syscall", long, long, ...);
	va_list list;
	va_start(list, number);
	long a[6];
	for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_io_submit) return submit(real, (aio_context_t)a[0], a[1], (struct iocb **)a[2]);
	long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number == SYS_io_getevents)
		for (long i = 0; i < result; i++) ended((struct io_event *)a[3] + i);
	return result;
}

// The calls of libuv return the error's number, negative, and in the request.
static int fails(uv_fs_t *request, int error) {
	memset(request, 0, sizeof *request);
	request->result = -error;
	return -error;
}

int uv_fs_open(uv_loop_t *loop, uv_fs_t *request, const char *path, int flags, int mode, uv_fs_cb done) {
	next("uv_fs_open", int, uv_loop_t *, uv_fs_t *, const char *, int, int, uv_fs_cb);
	int error = flags & O_CREAT ? refused_path(path) : 0;
	if (error) return fails(request, error);
	int result = real(loop, request, path, flags, mode, done);
	if (result < 0 && flags & O_CREAT) note(path, -result);
	return result;
}

int uv_fs_rename(uv_loop_t *loop, uv_fs_t *request, const char *from, const char *to, uv_fs_cb done) {
	next("uv_fs_rename", int, uv_loop_t *, uv_fs_t *, const char *, const char *, uv_fs_cb);
	int error = refused_path(to);
	if (error) return fails(request, error);
	int result = real(loop, request, from, to, done);
	if (result < 0) note(to, -result);
	return result;
}

int uv_fs_write(uv_loop_t *loop, uv_fs_t *request, uv_file fd, const uv_buf_t buffers[], unsigned int n, int64_t offset, uv_fs_cb done) {
	next("uv_fs_write", int, uv_loop_t *, uv_fs_t *, uv_file, const uv_buf_t *, unsigned int, int64_t, uv_fs_cb);
	int error = refused_file(fd);
	if (error) return fails(request, error);
	int result = real(loop, request, fd, buffers, n, offset, done);
	if (result == -ENOSPC && give_up(fd)) result = real(loop, request, fd, buffers, n, offset, done);
	if (result < 0) note_file(fd, -result);
	return result;
}

int uv_fs_ftruncate(uv_loop_t *loop, uv_fs_t *request, uv_file fd, int64_t size, uv_fs_cb done) {
	next("uv_fs_ftruncate", int, uv_loop_t *, uv_fs_t *, uv_file, int64_t, uv_fs_cb);
	int error = refused_file(fd);
	if (error) return fails(request, error);
	int result = real(loop, request, fd, size, done);
	if (result < 0) note_file(fd, -result);
	return result;
}

#define SYNC(name)                                                                  \
	int name(uv_loop_t *loop, uv_fs_t *request, uv_file fd, uv_fs_cb done) {        \
		next(#name, int, uv_loop_t *, uv_fs_t *, uv_file, uv_fs_cb);                \
		int error = refused_file(fd);                                               \
		if (error) return fails(request, error);                                    \
		int result = real(loop, request, fd, done);                                 \
		if (result < 0) note_file(fd, -result);                                     \
		return result;                                                              \
	}

SYNC(uv_fs_fsync)
SYNC(uv_fs_fdatasync)

// dqlite_node_destroy is called by go-dqlite 1.11.5 also for a node that could not be made,
// which is none.
void dqlite_node_destroy(void *node) {
	next("dqlite_node_destroy", void, void *);
	if (node != NULL) real(node);
}
