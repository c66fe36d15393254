#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

// MAX_FDS is how many descriptors one message carries at most.
#define MAX_FDS 4

bool fields_read(int fd, struct fields *f)
{
	struct stat st;
	ssize_t have = 0;
	char *buffer;

	if (fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return false;
	buffer = malloc((size_t)st.st_size + 1);
	if (!buffer)
		return false;
	while (have < st.st_size) {
		ssize_t n = read(fd, buffer + have, (size_t)(st.st_size - have));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		have += n;
	}
	buffer[have] = '\0';
	f->at = buffer;
	f->end = buffer + have;
	return true;
}

char *fields_next(struct fields *f)
{
	char *field = f->at;

	if (field >= f->end)
		return NULL;
	f->at += strlen(field) + 1;
	return field;
}

char **fields_list(struct fields *f)
{
	char *count = fields_next(f);
	long n = count ? strtol(count, NULL, 10) : -1;
	char **list;

	if (n < 0 || n > f->end - f->at)
		return NULL;
	list = calloc((size_t)n + 1, sizeof(*list));
	if (!list)
		return NULL;
	for (long i = 0; i < n; i++) {
		list[i] = fields_next(f);
		if (!list[i])
			return NULL;
	}
	return list;
}

bool send_message(const char *text, const int *fds, int n)
{
	union {
		char buffer[CMSG_SPACE(sizeof(int) * MAX_FDS)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = (void *)text, .iov_len = strlen(text) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	if (n > 0) {
		struct cmsghdr *header;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buffer;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n);
		header = CMSG_FIRSTHDR(&msg);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)n);
	}
	do
		sent = sendmsg(SHIM_SOCKET, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent >= 0;
}

int fail(const char *what)
{
	char text[512];
	int err = errno;

	if (err)
		snprintf(text, sizeof(text), "error %s: %s", what, strerror(err));
	else
		snprintf(text, sizeof(text), "error %s", what);
	send_message(text, NULL, 0);
	return SHIM_FAILED;
}

bool null_stdio(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return false;
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(null, fd) < 0)
			return false;
	if (null > 2)
		close(null);
	return true;
}

ssize_t read_file(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	do
		n = read(fd, buffer, size - 1);
	while (n < 0 && errno == EINTR);
	close(fd);
	if (n >= 0)
		buffer[n] = '\0';
	return n;
}

// shim_entry runs before the Go runtime (glibc gives constructors the arguments
// of main). Subcommands that it does not know are main's.
__attribute__((constructor)) static void shim_entry(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	// What enters a container must not be open to ptrace from there while it
	// still holds something of the host.
	if (!strcmp(command, "exec")) {
		prctl(PR_SET_DUMPABLE, 0);
		_exit(shim_exec(argc, argv));
	}
	if (!strcmp(command, "start"))
		_exit(shim_start(argc, argv));
	if (!strcmp(command, "console"))
		_exit(shim_console(argc, argv));
	if (!strcmp(command, "device"))
		_exit(shim_device(argc, argv));
	if (!strcmp(command, "files")) {
		prctl(PR_SET_DUMPABLE, 0);
		files_enter(argc, argv);
	}
	if (!strcmp(command, "proxy")) {
		// The daemon is not its parent: it may end before.
		setsid();
		if (fork() != 0)
			_exit(SHIM_OK);
		setsid();
	}
	if (!strcmp(command, "rootfiles")) {
		prctl(PR_SET_DUMPABLE, 0);
		root_files_enter(argc, argv);
	}
}
