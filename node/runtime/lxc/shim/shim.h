// Shared by the C half of muster-shim. All of it runs in a constructor, before
// the Go runtime has made its threads: only a process of one thread may enter a
// user namespace, and what stays with a container should not carry a runtime.
#ifndef MUSTER_SHIM_H
#define MUSTER_SHIM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

// Descriptors that the daemon passes besides the three standard ones. The Go
// side names them in package wire.
#define SHIM_SOCKET 3 // a SOCK_SEQPACKET pair: answers with descriptors
#define SHIM_INPUT 4  // a memfd: what to do, as fields that end in NUL
#define SHIM_PIDFD 5  // the container's init
#define SHIM_MONITOR 3 // start alone: the monitor file, its second byte locked

// Exit codes of the subcommands themselves.
#define SHIM_OK 0
#define SHIM_FAILED 1
#define SHIM_BUSY 2

// Each subcommand is given all of argv and returns the process's exit code;
// files_enter returns to let main go on inside the container.
int shim_start(int argc, char **argv);
int shim_exec(int argc, char **argv);
int shim_console(int argc, char **argv);
int shim_device(int argc, char **argv);
void files_enter(int argc, char **argv);
void root_files_enter(int argc, char **argv);

// fields reads NUL-terminated fields of a request one after another.
struct fields {
	char *at;
	char *end;
};

// fields_read reads the whole descriptor; false if it can't.
bool fields_read(int fd, struct fields *f);
// fields_next returns the next field; NULL when there is none.
char *fields_next(struct fields *f);
// fields_list returns the next field as a count and as many fields after it, as
// an array that ends in NULL; NULL when they are not there.
char **fields_list(struct fields *f);

// send_message sends text with n descriptors over SHIM_SOCKET.
bool send_message(const char *text, const int *fds, int n);
// fail sends "error <what>: <strerror>" over SHIM_SOCKET and returns SHIM_FAILED.
int fail(const char *what);
// null_stdio points the three standard descriptors at /dev/null.
bool null_stdio(void);
// read_file reads at most size-1 bytes and ends them with NUL.
ssize_t read_file(const char *path, char *buffer, size_t size);

#endif
