// The monitor: the process that stays with a container. It is liblxc's own main
// loop in a loop of ours, which starts the container again when it reboots, from
// the configuration as it is on disk then, whether or not a daemon lives.
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <lxc/lxccontainer.h>

// REBOOTED is the exit code of an init that the kernel killed with SIGHUP:
// reboot(2) was called in its PID namespace (reboot(2), "Behavior inside PID
// namespaces").
#define REBOOTED (128 + SIGHUP)

// GOAL_SIZE is the size of the file of a goal; the daemon's side is goalSize.
#define GOAL_SIZE 16

// exit_code turns what liblxc leaves in error_num into a shell's exit code. Seen
// with 5.0.2: a wait status, where death by a signal looks like a stop by it.
static int exit_code(int num)
{
	if ((num & 0xff) == 0x7f)
		return 128 + (num >> 8);
	if (num > 0xff && (num & 0xff) == 0)
		return num >> 8;
	return num;
}

// START_SECONDS is how long a container may take until its init runs.
#define START_SECONDS 60

static void pause_us(long us)
{
	struct timespec t = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };

	nanosleep(&t, NULL);
}

// start_time returns when a process started, in clock ticks since boot, or 0: with
// its number it names a process for good.
static unsigned long long start_time(pid_t pid)
{
	char path[64], stat[1024], *at;
	unsigned long long ticks = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (read_file(path, stat, sizeof(stat)) <= 0)
		return 0;
	// The second field is a name in brackets that may hold anything.
	at = strrchr(stat, ')');
	if (!at)
		return 0;
	// From the third field on: starttime is the 22nd (proc(5)).
	for (int field = 2; field < 22 && at; field++)
		at = strchr(at + 1, ' ');
	if (at)
		ticks = strtoull(at + 1, NULL, 10);
	return ticks;
}

// put_file replaces run/name in one step.
static bool put_file(const char *run, const char *name, const char *text)
{
	char path[4096], temporary[4096];
	int fd;
	bool ok;

	if (snprintf(path, sizeof(path), "%s/%s", run, name) >= (int)sizeof(path) ||
	    snprintf(temporary, sizeof(temporary), "%s/.%s.new", run, name) >= (int)sizeof(temporary))
		return false;
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok && rename(temporary, path) == 0;
}

// lock_monitor takes the lock that says which process is the monitor. It is a
// record lock: the kernel drops it when this process ends, however it ends, no
// child inherits it, and anybody may ask who holds it. The second byte was locked
// by the daemon for whoever has this open file, so that at no moment a container
// that is on its way looks like none; it is let go only then, and for all who have
// the file. Another descriptor of the file must never be closed here: that would
// drop the record lock (fcntl(2)).
static bool lock_monitor(void)
{
	struct flock own = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	struct flock announced = { .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 1 };

	return fcntl(SHIM_MONITOR, F_SETLK, &own) == 0 && fcntl(SHIM_MONITOR, F_OFD_SETLK, &announced) == 0;
}

// starts_again says whether a container that ended with code is to run again: it
// rebooted, or the daemon stopped it to restart it. When the daemon meant to
// stop it, a reboot that came first does not count.
//
// The file of the goal has one length, with zeros after the goal: it is overwritten
// where it stands, because stopping must need no room on the disk.
static bool starts_again(const char *run, int code)
{
	char path[4096], goal[GOAL_SIZE + 1] = "";
	const char none[GOAL_SIZE] = "";
	int fd;

	if (snprintf(path, sizeof(path), "%s/goal", run) >= (int)sizeof(path))
		return false;
	if (read_file(path, goal, sizeof(goal)) <= 0 || !*goal)
		return code == REBOOTED;
	if (strcmp(goal, "restart"))
		return false;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, none, sizeof(none)) != (ssize_t)sizeof(none))
		unlink(path);
	if (fd >= 0)
		close(fd);
	return true;
}

// executes says whether a process has left this program for another.
static bool executes(pid_t pid)
{
	char path[64];
	struct stat own, its;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	return stat("/proc/self/exe", &own) == 0 && stat(path, &its) == 0 &&
	       (own.st_ino != its.st_ino || own.st_dev != its.st_dev);
}

// await_init waits until the container's init runs its own program and records
// it in run/state. monitor is the process that starts it.
static int await_init(const char *dir, const char *id, const char *run, pid_t monitor, bool child, int boots)
{
	struct lxc_container *c = lxc_container_new(id, dir);
	char text[256];
	time_t deadline = time(NULL) + START_SECONDS;
	int status;
	pid_t init;

	if (!c)
		return SHIM_FAILED;
	for (;;) {
		// Until the monitor listens this fails at once; from then on it answers
		// when init is about to run.
		init = c->init_pid(c);
		if (init > 0 && executes(init))
			break;
		if (child && waitpid(monitor, &status, WNOHANG) == monitor)
			return WIFEXITED(status) && WEXITSTATUS(status) == SHIM_BUSY ? SHIM_BUSY : SHIM_FAILED;
		if (!child && kill(monitor, 0) < 0)
			return SHIM_FAILED;
		if (time(NULL) > deadline) {
			kill(monitor, SIGKILL);
			if (init > 0)
				kill(init, SIGKILL);
			return SHIM_FAILED;
		}
		pause_us(300);
	}
	snprintf(text, sizeof(text), "boots %d\ninit %d %llu\nmonitor %d %llu\n", boots, init, start_time(init), monitor,
		 start_time(monitor));
	return put_file(run, "state", text) ? SHIM_OK : SHIM_FAILED;
}

// init_command returns the arguments of init if run/init has them, since
// liblxc's own key cuts at every space; NULL means liblxc's default.
static char **init_command(const char *run)
{
	char path[4096], **argv = NULL;
	struct fields f;
	int fd;

	if (snprintf(path, sizeof(path), "%s/init", run) >= (int)sizeof(path))
		return NULL;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	if (fields_read(fd, &f))
		argv = fields_list(&f);
	close(fd);
	return argv && argv[0] ? argv : NULL;
}

// remove_link removes a network interface of the host by its name
// (rtnetlink(7)). That there is none is as good.
static void remove_link(int netlink, const char *name)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg info;
		struct rtattr attr;
		char name[IFNAMSIZ];
	} request = { 0 };
	char answer[1024];
	size_t length = strlen(name) + 1;

	if (length > IFNAMSIZ)
		return;
	memcpy(request.name, name, length);
	request.attr.rta_type = IFLA_IFNAME;
	request.attr.rta_len = (unsigned short)RTA_LENGTH(length);
	request.header.nlmsg_len = NLMSG_LENGTH(sizeof(request.info)) + RTA_ALIGN(request.attr.rta_len);
	request.header.nlmsg_type = RTM_DELLINK;
	request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	request.info.ifi_family = AF_UNSPEC;
	if (send(netlink, &request, request.header.nlmsg_len, 0) > 0)
		(void)!recv(netlink, answer, sizeof(answer), 0);
}

// remove_host_ends removes the host's ends of the veths that the container is
// about to get again. liblxc has removed those that it made itself; one that was
// added later goes with its network namespace, at a time of the kernel's choice.
static void remove_host_ends(struct lxc_container *c)
{
	int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	char key[64], value[256];

	if (netlink < 0)
		return;
	for (int i = 0;; i++) {
		snprintf(key, sizeof(key), "lxc.net.%d.type", i);
		if (c->get_config_item(c, key, value, sizeof(value)) <= 0)
			break;
		snprintf(key, sizeof(key), "lxc.net.%d.veth.pair", i);
		if (!strcmp(value, "veth") && c->get_config_item(c, key, value, sizeof(value)) > 0 && if_nametoindex(value))
			remove_link(netlink, value);
	}
	close(netlink);
}

// record_reboot leaves a process behind that records the coming init. It is an
// orphan, since liblxc's loop reaps nothing but init.
static void record_reboot(const char *dir, const char *id, const char *run, int boots)
{
	pid_t self = getpid(), pid = fork();

	if (pid == 0) {
		if (fork() == 0)
			await_init(dir, id, run, self, false, boots);
		_exit(SHIM_OK);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

// monitor runs the container until it ends for good. It does not return.
static void monitor(const char *dir, const char *id, const char *run)
{
	char text[64];
	int code = 1;

	if (!lock_monitor())
		_exit(SHIM_BUSY);
	for (int boots = 1;; boots++) {
		struct lxc_container *c = lxc_container_new(id, dir);

		if (!c)
			break;
		if (boots > 1) {
			remove_host_ends(c);
			record_reboot(dir, id, run, boots);
		}
		c->want_daemonize(c, false);
		if (!c->start(c, 0, init_command(run)) && c->error_num == 0)
			code = 1;
		else
			code = exit_code(c->error_num);
		lxc_container_put(c);
		if (!starts_again(run, code))
			break;
	}
	snprintf(text, sizeof(text), "%d\n", code);
	put_file(run, "exit", text);
	_exit(SHIM_OK);
}

// shim_start: muster-shim start DIRECTORY ID. It ends as soon as the
// container's init runs, and leaves the monitor behind.
int shim_start(int argc, char **argv)
{
	char run[4096];
	pid_t pid;

	if (argc != 4 || snprintf(run, sizeof(run), "%s/%s", argv[2], argv[3]) >= (int)sizeof(run))
		return SHIM_FAILED;
	// Out of the daemon's process group and off its terminal, so that what is
	// sent to them does not reach the container.
	setsid();
	umask(022);
	if (!null_stdio() || chdir("/") < 0 || fcntl(SHIM_MONITOR, F_SETFD, FD_CLOEXEC) < 0)
		return SHIM_FAILED;
	close_range(SHIM_MONITOR + 1, ~0U, 0);

	pid = fork();
	if (pid < 0)
		return SHIM_FAILED;
	if (pid == 0) {
		setsid();
		monitor(argv[2], argv[3], run);
	}
	return await_init(argv[2], argv[3], run, pid, true, 1);
}
