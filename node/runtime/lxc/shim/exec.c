// exec runs a command in a container: liblxc enters its namespaces, cgroups,
// seccomp policy and security label; what is ours is the terminal, the exact
// exit codes, and that nothing of the host goes along.
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lxc/attach_options.h>
#include <lxc/lxccontainer.h>

// Exit codes by the shell's convention (POSIX, "Exit Status for Commands").
#define NOT_EXECUTABLE 126
#define NOT_FOUND 127

struct command {
	char **argv;
	char **envp;
	char *cwd;
	uid_t uid;
	gid_t gid;
	// host_uid is uid as the host sees it.
	uid_t host_uid;
	bool interactive;
	struct winsize size;
};

static bool read_command(struct command *cmd)
{
	struct fields f;
	char *uid, *gid, *host_uid, *interactive, *width, *height;

	if (!fields_read(SHIM_INPUT, &f))
		return false;
	uid = fields_next(&f);
	gid = fields_next(&f);
	host_uid = fields_next(&f);
	cmd->cwd = fields_next(&f);
	interactive = fields_next(&f);
	width = fields_next(&f);
	height = fields_next(&f);
	cmd->argv = fields_list(&f);
	cmd->envp = fields_list(&f);
	if (!cmd->envp || !cmd->argv || !cmd->argv[0])
		return false;
	cmd->uid = (uid_t)strtoul(uid, NULL, 10);
	cmd->gid = (gid_t)strtoul(gid, NULL, 10);
	cmd->host_uid = (uid_t)strtoul(host_uid, NULL, 10);
	cmd->interactive = !strcmp(interactive, "1");
	cmd->size.ws_col = (unsigned short)strtoul(width, NULL, 10);
	cmd->size.ws_row = (unsigned short)strtoul(height, NULL, 10);
	return true;
}

// complain writes to the command's own standard error, as a shell would.
static int complain(const char *what, int err)
{
	dprintf(2, "%s: %s\n", what, strerror(err));
	return err == ENOENT || err == ENOTDIR ? NOT_FOUND : NOT_EXECUTABLE;
}

// become runs inside the container, as the user asked for, and executes the
// command. What it returns is the exit code.
static int become(void *payload)
{
	struct command *cmd = payload;
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	// liblxc's own descriptors, and ours.
	if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return NOT_EXECUTABLE;
	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	setsid();
	// liblxc makes what it attaches to mode 0700; a terminal is 0620.
	if (cmd->interactive && (ioctl(0, TIOCSCTTY, 0) < 0 || fchmod(0, 0620) < 0))
		return complain("terminal", errno);
	if (cmd->cwd[0]) {
		if (chdir(cmd->cwd) < 0) {
			complain(cmd->cwd, errno);
			return NOT_EXECUTABLE;
		}
	} else {
		const char *home = NULL;

		for (char **e = cmd->envp; *e; e++)
			if (!strncmp(*e, "HOME=", 5))
				home = *e + 5;
		if ((!home || chdir(home) < 0) && chdir("/") < 0)
			return complain("/", errno);
	}
	// execvp looks along the PATH of this process.
	environ = cmd->envp;
	execvp(cmd->argv[0], cmd->argv);
	return complain(cmd->argv[0], errno);
}

// open_terminal makes a terminal in the devpts that liblxc mounted for the
// container, so that ttyname works there. The descriptor of that mount comes
// from the monitor: no path of the container is walked.
static bool open_terminal(struct lxc_container *c, const struct command *cmd, int *outer, int *inner)
{
	int devpts = c->devpts_fd(c), locked = 0;

	if (devpts < 0)
		return false;
	*outer = openat(devpts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	close(devpts);
	if (*outer < 0 || ioctl(*outer, TIOCSPTLCK, &locked) < 0)
		return false;
	*inner = ioctl(*outer, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*inner < 0)
		return false;
	// The group is the one that devpts was mounted with: tty.
	if (fchown(*inner, cmd->host_uid, (gid_t)-1) < 0)
		return false;
	if (cmd->size.ws_col && cmd->size.ws_row && ioctl(*outer, TIOCSWINSZ, &cmd->size) < 0)
		return false;
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(*inner, fd) < 0)
			return false;
	return true;
}

// hang_up_alone returns when the command has ended. When the daemon lets go of its end of
// the socket first, or ends itself, the command and its process group are hung up and
// killed: nobody could see it, wait for it or end it any more.
static void hang_up_alone(pid_t pid, int pidfd)
{
	struct pollfd fds[2] = {
		{ .fd = pidfd, .events = POLLIN },
		{ .fd = SHIM_SOCKET, .events = POLLRDHUP }, // the daemon sends nothing
	};

	while (fds[0].revents == 0 && fds[1].revents == 0)
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return;
	if (fds[0].revents != 0)
		return;
	// The command leads a session of its own, unless it has not come to that yet.
	for (int i = 0; i < 2; i++)
		if (kill(-pid, i ? SIGKILL : SIGHUP) < 0)
			kill(pid, i ? SIGKILL : SIGHUP);
}

// shim_exec: muster-shim exec DIRECTORY ID.
// It answers "running <pid>" with the process's pidfd and, when interactive, the
// outer end of its terminal; then "ended <wait status>".
int shim_exec(int argc, char **argv)
{
	struct command cmd = { 0 };
	lxc_attach_options_t options = LXC_ATTACH_OPTIONS_DEFAULT;
	struct lxc_container *c;
	char text[64];
	int fds[2] = { -1, -1 }, inner = -1, status;
	pid_t pid = -1;

	errno = 0;
	if (argc != 4 || !read_command(&cmd))
		return fail("malformed request");
	close(SHIM_INPUT);
	fcntl(SHIM_SOCKET, F_SETFD, FD_CLOEXEC);
	// What is sent to the daemon's process group is not for the command.
	setsid();
	c = lxc_container_new(argv[3], argv[2]);
	if (!c)
		return fail("read the container's configuration");
	if (cmd.interactive && !open_terminal(c, &cmd, &fds[1], &inner))
		return fail("open a terminal in the container");

	options.env_policy = LXC_ATTACH_CLEAR_ENV;
	options.uid = cmd.uid;
	options.gid = cmd.gid;
	options.initial_cwd = "/";
	if (c->attach(c, become, &cmd, &options, &pid) < 0 || pid <= 0)
		return fail("enter the container");

	fds[0] = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fds[0] < 0)
		return fail("open the command's pidfd");
	snprintf(text, sizeof(text), "running %d", pid);
	send_message(text, fds, cmd.interactive ? 2 : 1);
	// From now on the outer end is the daemon's alone: the command is hung up
	// when that goes. The inner end stays open here, so that a command which
	// opens and closes its terminal does not look ended meanwhile.
	if (fds[1] >= 0)
		close(fds[1]);
	if (!cmd.interactive) {
		// The command's streams end when the command closes them.
		if (!null_stdio())
			return fail("open /dev/null");
	}
	hang_up_alone(pid, fds[0]);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return fail("wait for the command");
	snprintf(text, sizeof(text), "ended %d", status);
	send_message(text, NULL, 0);
	return SHIM_OK;
}
