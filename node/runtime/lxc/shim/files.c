// files enters a container for the SFTP server that main then runs there.
//
// The server is inside the container's mounts and its user namespace, so every
// path and owner means what it means to the container, and nothing above its
// root can be named. It is not in its PID namespace: no process of the container
// can see it, let alone trace it.
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// SHIM_PROC is the host's /proc, kept to open again what was looked at first.
#define SHIM_PROC 6

// keep_proc opens the host's /proc as SHIM_PROC.
static bool keep_proc(void)
{
	int fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (fd != SHIM_PROC) {
		if (dup3(fd, SHIM_PROC, O_CLOEXEC) < 0)
			return false;
		close(fd);
	}
	return true;
}

// become_root becomes root of the user namespace entered. With no user
// namespace it changes nothing.
static bool become_root(void)
{
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return false;
	// Files are made with the modes that the client asks for.
	umask(0);
	return chdir("/") == 0 && prctl(PR_SET_DUMPABLE, 0) == 0;
}

// settle is the end of both ways in: nothing of the host's environment stays,
// since the Go runtime and its libraries act on it.
static void settle(const char *step)
{
	if (step) {
		fail(step);
		_exit(SHIM_FAILED);
	}
	clearenv();
	setenv("TZ", "UTC", 1);
	setenv("GOMAXPROCS", "2", 1);
	send_message("ready", NULL, 0);
	close(SHIM_SOCKET);
}

// files_enter: muster-shim files, with SHIM_PIDFD the container's init.
void files_enter(int argc, char **argv)
{
	struct stat own, its;
	char path[64];
	int namespaces = CLONE_NEWNS;
	const char *step = NULL;

	(void)argv;
	errno = 0;
	setsid();
	if (argc != 3)
		settle("malformed request");
	// argv[2] is init's number, only to learn whether its user namespace is
	// another than ours: entering one's own is refused.
	snprintf(path, sizeof(path), "/proc/%s/ns/user", argv[2]);
	if (!keep_proc() || stat("/proc/self/ns/user", &own) < 0 || stat(path, &its) < 0)
		settle("look at the container's namespaces");
	if (own.st_ino != its.st_ino)
		namespaces |= CLONE_NEWUSER;
	if (setns(SHIM_PIDFD, namespaces) < 0)
		step = "enter the container";
	else if (!become_root())
		step = "become the container's root";
	close(SHIM_PIDFD);
	settle(step);
}

// write_proc writes text to a file of the host's /proc in one call.
static bool write_proc(const char *path, const char *text)
{
	int fd = openat(SHIM_PROC, path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok;
}

// new_user_namespace makes a user namespace that maps 0..size-1 to host and up.
// A child that stayed outside writes the maps.
static bool new_user_namespace(const char *host, const char *size)
{
	char path[64], map[64];
	int pipes[2], status;
	pid_t self = getpid(), child;
	char go;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return false;
	child = fork();
	if (child < 0)
		return false;
	if (child == 0) {
		close(pipes[1]);
		if (read(pipes[0], &go, 1) != 1)
			_exit(1);
		snprintf(map, sizeof(map), "0 %s %s\n", host, size);
		snprintf(path, sizeof(path), "%d/uid_map", self);
		if (!write_proc(path, map))
			_exit(1);
		snprintf(path, sizeof(path), "%d/gid_map", self);
		_exit(write_proc(path, map) ? 0 : 1);
	}
	if (unshare(CLONE_NEWUSER) < 0 || write(pipes[1], "g", 1) != 1)
		return false;
	close(pipes[0]);
	close(pipes[1]);
	return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// enter_root makes a mount namespace whose root is path, without devices.
static bool enter_root(const char *path)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0 || chdir(path) < 0)
		return false;
	// The old root ends up mounted over the new one and is then taken away
	// (pivot_root(2), "pivot_root(".", ".")").
	return syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0;
}

// root_files_enter: muster-shim rootfiles ROOT [HOST SIZE].
void root_files_enter(int argc, char **argv)
{
	const char *step = NULL;

	errno = 0;
	setsid();
	if (argc != 3 && argc != 5)
		settle("malformed request");
	if (!keep_proc())
		step = "open /proc";
	else if (!enter_root(argv[2]))
		step = "enter the root file system";
	else if (argc == 5 && !new_user_namespace(argv[3], argv[4]))
		step = "make a user namespace";
	else if (!become_root())
		step = "become its root";
	settle(step);
}
