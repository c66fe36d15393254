// console and device: two questions that only the container's monitor answers.
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lxc/lxccontainer.h>

// shim_console: muster-shim console DIRECTORY ID.
// It answers "console" with two descriptors: the terminal, and the connection to
// the monitor that holds it until closed.
int shim_console(int argc, char **argv)
{
	struct lxc_container *c;
	int number = 0, fds[2] = { -1, -1 };

	errno = 0;
	if (argc != 4)
		return fail("malformed request");
	c = lxc_container_new(argv[3], argv[2]);
	if (!c)
		return fail("read the container's configuration");
	errno = 0;
	fds[1] = c->console_getfd(c, &number, &fds[0]);
	if (fds[1] < 0) {
		send_message("busy", NULL, 0);
		return SHIM_BUSY;
	}
	return send_message("console", fds, 2) ? SHIM_OK : SHIM_FAILED;
}

// shim_device: muster-shim device DIRECTORY ID allow|deny RULE.
// Where devices are guarded by a BPF program (cgroup v2) the monitor holds it, so
// the monitor must change it.
int shim_device(int argc, char **argv)
{
	struct lxc_container *c;
	const char *key;

	errno = 0;
	if (argc != 6)
		return fail("malformed request");
	key = strcmp(argv[4], "allow") ? "devices.deny" : "devices.allow";
	c = lxc_container_new(argv[3], argv[2]);
	if (!c)
		return fail("read the container's configuration");
	errno = 0;
	if (!c->set_cgroup_item(c, key, argv[5]))
		return fail("change the container's device rules");
	send_message("done", NULL, 0);
	return SHIM_OK;
}
