// Package clients drives a real daemon with the clients people already have:
// Debian's lxc and python3-pylxd, unchanged.
//
// Nothing here is a stub: every command is checked by what it printed or by what
// it did.
package clients

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// step is one command with what must come of it.
type step struct {
	// run is a line for the shell, with the member's environment.
	run string
	// want is a regular expression that the output must match.
	want string
	// fails says that the command must fail, with want in what it says.
	fails bool
	// poll repeats the command until it matches, for what needs a moment (an
	// address by DHCP).
	poll bool
}

// needs skips the test when a client is not installed.
func needs(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: \"apt-get install %s\"", program, pkg)
	}
}

func (s step) attempt(m *lab.Member) (string, bool) {
	cmd := m.Command("bash", "-c", s.run)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	matched := regexp.MustCompile(`(?s)` + s.want).MatchString(out.String())
	text := out.String()
	if err != nil {
		text += "\n(" + err.Error() + ")"
	}
	return text, (err != nil) == s.fails && matched
}

func (s step) check(t *testing.T, m *lab.Member) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, ok := s.attempt(m)
		if ok {
			return
		}
		if !s.poll || time.Now().After(deadline) {
			t.Errorf("%s\ngot:\n%s\nwant (fails %v): %s", s.run, out, s.fails, s.want)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestLXC(t *testing.T) {
	lab.NeedsRoot(t)
	needs(t, "lxc", "lxd-client")
	m := lab.Start(t, lab.Options{})
	image := lab.BusyboxFile(t)
	work := t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "hello"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(work, "tree", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "tree", "sub", "leaf"), []byte("leaf\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	replace := strings.NewReplacer("$IMAGE", image, "$WORK", work, "$PORT", freePort(t))
	for _, s := range lxcSteps {
		s.run = replace.Replace(s.run)
		start := time.Now()
		s.check(t, m)
		t.Logf("%6d ms  %s", time.Since(start).Milliseconds(), s.run)
	}
	if len(lxcSteps) < 60 {
		t.Errorf("%d commands; want at least 60", len(lxcSteps))
	}
}

// freePort is a port of the loopback address that nobody uses now.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// lxcSteps are everyday commands, in an order that tells a story.
var lxcSteps = []step{
	{run: "lxc version", want: `Client version: 5\.0.*Server version: 5\.0\.2`},
	{run: "lxc info", want: `api_status: stable.*server: muster`},
	{run: "lxc remote list", want: `local`},
	{run: "lxc list", want: `NAME.*STATE.*IPV4`},
	{run: "lxc storage list", want: `default.*overlay`},
	{run: "lxc storage show default", want: `driver: overlay`},
	{run: "lxc storage info default", want: `space used`},
	{run: "lxc network list", want: `bridge.*YES`},
	{run: "lxc profile list", want: `default`},
	{run: "lxc profile show default", want: `path: /.*type: disk`},
	{run: "lxc image import $IMAGE --alias busybox", want: `fingerprint`},
	{run: "lxc image import $IMAGE --alias again", want: `(?i)already exists`, fails: true},
	{run: "lxc image list", want: `busybox`},
	{run: "lxc image list --format csv -c L", want: `busybox`},
	{run: "lxc image info busybox", want: `Architecture: x86_64`},
	{run: "lxc image show busybox", want: `properties:`},
	{run: "lxc image set-property busybox note fine", want: ``},
	{run: "lxc image get-property busybox note", want: `fine`},
	{run: "lxc image alias create bb $(lxc image list --format csv -c f | head -1)", want: ``},
	{run: "lxc image alias list", want: `bb`},
	{run: "lxc image alias rename bb bbx", want: ``},
	{run: "lxc image alias delete bbx", want: ``},
	{run: "lxc image export busybox $WORK/exported", want: `(?i)exported`},
	{run: "lxc launch busybox c1", want: `Starting c1`},
	{run: "lxc launch busybox c1", want: `(?i)already exists`, fails: true},
	{run: "lxc launch nosuch c9", want: `(?i)not found`, fails: true},
	{run: "lxc list --format csv -c ns", want: `c1,RUNNING`},
	{run: "lxc list c1 --format csv -c 4", want: `\d+\.\d+\.\d+\.\d+ \(eth0\)`, poll: true},
	{run: "lxc info c1", want: `Status: RUNNING.*Processes:`},
	{run: "lxc exec c1 -- hostname", want: `^c1`},
	{run: "lxc exec c1 -- sh -c 'echo out; echo err >&2; exit 3'; echo code $?", want: `out.*code 3`},
	{run: "lxc exec c1 -- nosuchcommand; echo code $?", want: `code 127`},
	{run: "echo piped | lxc exec c1 -- cat", want: `^piped`},
	{run: "lxc exec c1 --env FOO=bar -- sh -c 'echo $FOO'", want: `bar`},
	{run: "lxc exec c1 --cwd /tmp -- pwd", want: `^/tmp`},
	{run: "lxc exec c1 --user 1000 --group 1000 -- id -u", want: `^1000`},
	{run: "lxc exec c1 --mode interactive -- sh -c 'tty; stty size'", want: `/dev/pts/`},
	{run: "lxc file push $WORK/hello c1/root/hello", want: ``},
	{run: "lxc exec c1 -- cat /root/hello", want: `^hello`},
	{run: "lxc file pull c1/root/hello -", want: `^hello`},
	{run: "lxc file push --uid 7 --gid 8 --mode 0640 $WORK/hello c1/root/owned && lxc exec c1 -- stat -c '%u %g %a' /root/owned", want: `7 8 640`},
	{run: "lxc file push -r $WORK/tree c1/root/", want: ``},
	{run: "lxc exec c1 -- cat /root/tree/sub/leaf", want: `leaf`},
	{run: "lxc file pull -r c1/root/tree $WORK/back && cat $WORK/back/tree/sub/leaf", want: `leaf`},
	{run: "lxc file push -p $WORK/hello c1/root/made/up/hello && lxc exec c1 -- cat /root/made/up/hello", want: `hello`},
	{run: "lxc file delete c1/root/hello && lxc exec c1 -- ls /root", want: `owned`},
	{run: "lxc file pull c1/root/hello -", want: `(?i)not (found|exist)`, fails: true},
	{run: "lxc config set c1 user.note=one", want: ``},
	{run: "lxc config get c1 user.note", want: `one`},
	{run: "lxc config set c1 limits.memry=64MiB", want: `limits\.memory`, fails: true},
	{run: "lxc config set c1 limits.memory=64MiB limits.processes=100", want: ``},
	{run: "lxc config show c1", want: `limits.memory: 64MiB`},
	{run: "lxc config show c1 --expanded", want: `pool: default`},
	{run: "lxc config unset c1 user.note && lxc config get c1 user.note", want: `^\s*$`},
	{run: "lxc config device add c1 data disk source=$WORK path=/mnt/data && lxc exec c1 -- cat /mnt/data/tree/sub/leaf", want: `leaf`},
	{run: "lxc config device list c1", want: `data`},
	{run: "lxc config device show c1", want: `source: `},
	{run: "lxc config device get c1 data path", want: `/mnt/data`},
	{run: "lxc config device remove c1 data && lxc exec c1 -- ls /mnt/data", want: ``},
	{run: "lxc config device add c1 x disk sorce=/tmp path=/x", want: `source`, fails: true},
	{run: "lxc profile create web", want: `Profile web created`},
	{run: "lxc profile set web user.role=web", want: ``},
	{run: "lxc profile get web user.role", want: `web`},
	{run: "lxc profile device add web none none", want: ``},
	{run: "lxc profile add c1 web && lxc config show c1 --expanded", want: `user.role: web`},
	{run: "lxc profile remove c1 web", want: ``},
	{run: "lxc profile copy web web2 && lxc profile list --format csv", want: `web2`},
	{run: "lxc profile rename web2 web3", want: `(?i)renamed`},
	{run: "lxc profile delete web3", want: `(?i)deleted`},
	{run: "lxc profile delete default", want: `(?i)default`, fails: true},
	{run: "lxc exec c1 -- sh -c 'echo before > /root/state'", want: ``},
	{run: "lxc snapshot c1 snap0", want: ``},
	{run: "lxc snapshot c1", want: ``},
	{run: "lxc info c1", want: `snap0.*snap1`},
	{run: "lxc exec c1 -- sh -c 'echo after > /root/state'", want: ``},
	{run: "lxc restore c1 snap0 && lxc exec c1 -- cat /root/state", want: `before`},
	{run: "lxc config show c1/snap0", want: `expires_at`},
	{run: "lxc mv c1/snap1 c1/kept", want: ``},
	{run: "lxc delete c1/kept", want: ``},
	{run: "lxc pause c1 && lxc list --format csv -c s c1", want: `FROZEN`},
	{run: "lxc start c1 && lxc list --format csv -c s c1", want: `RUNNING`},
	{run: "lxc restart -f c1 && lxc list --format csv -c s c1", want: `RUNNING`},
	{run: "lxc stop c1 && lxc list --format csv -c s c1", want: `STOPPED`},
	{run: "lxc copy c1 c2 && lxc start c2 && lxc exec c2 -- cat /root/state", want: `before`},
	{run: "lxc copy c1/snap0 c3 && lxc list --format csv -c n", want: `c3`},
	{run: "lxc rename c3 c4 && lxc list --format csv -c n", want: `c4`},
	{run: "lxc publish c4 --alias mine", want: `(?i)fingerprint`},
	{run: "lxc launch mine c5 && lxc exec c5 -- cat /root/state", want: `before`},
	{run: "lxc init busybox c6 && lxc list --format csv -c s c6", want: `STOPPED`},
	{run: "lxc launch busybox c7 -e && lxc stop -f c7 && lxc list --format csv -c n c7", want: `Starting c7\s*$`},
	{run: "lxc delete c2", want: `(?i)running`, fails: true},
	{run: "lxc delete -f c2 && lxc list --format csv -c n", want: `c1`},
	{run: "lxc delete c4 c6 && lxc stop -f c5 && lxc delete c5", want: ``},
	{run: "lxc start c1 && lxc console c1 --show-log", want: ``},
	{run: "lxc info c1 --show-log", want: `Log:`},
	{run: "lxc network create mtest0 ipv4.address=10.231.77.1/24 ipv6.address=none", want: `mtest0 created`},
	{run: "lxc network show mtest0", want: `10.231.77.1/24`},
	{run: "lxc network set mtest0 ipv4.nat=true && lxc network get mtest0 ipv4.nat", want: `true`},
	{run: "lxc network attach mtest0 c1 eth1 && lxc exec c1 -- ip link show eth1", want: `eth1`},
	{run: "lxc network detach mtest0 c1 && lxc network delete mtest0", want: `deleted`},
	{run: "lxc network list-leases $(lxc network list --format csv | grep YES | cut -d, -f1)", want: `c1`},
	{run: "lxc network info $(lxc network list --format csv | grep YES | cut -d, -f1)", want: `State: up`},
	{run: "lxc storage create second dir && lxc storage list --format csv", want: `second,dir`},
	{run: "lxc launch busybox c8 -s second && lxc exec c8 -- true && lxc delete -f c8", want: `Starting`},
	{run: "lxc storage delete second", want: `deleted`},
	{run: "lxc storage volume list default", want: `container`},
	{run: "lxc operation list", want: `ID`},
	{run: "lxc query /1.0 | grep api_version", want: `1\.0`},
	{run: "lxc query -X PATCH -d '{\"config\":{\"user.x\":\"y\"}}' /1.0/instances/c1 && lxc config get c1 user.x", want: `y`},
	{run: "lxc config set core.https_address 192.0.2.1:8443", want: `192\.0\.2\.1`, fails: true},
	{run: "lxc config set core.https_address 127.0.0.1:$PORT && lxc config get core.https_address", want: `127\.0\.0\.1`},
	{run: "lxc config set core.trust_password sesame && lxc config show", want: `core.trust_password: (\"?true\"?)`},
	{run: "lxc remote add far https://127.0.0.1:$PORT --accept-certificate --password wrong", want: `(?i)(password|not authorized)`, fails: true},
	{run: "lxc remote add far https://127.0.0.1:$PORT --accept-certificate --password sesame && lxc list far: --format csv -c n", want: `c1`},
	{run: "lxc exec far:c1 -- hostname", want: `c1`},
	{run: "lxc config trust list --format csv", want: `client`},
	{run: "lxc config trust remove $(lxc config trust list --format csv | tail -1 | cut -d, -f4) && lxc list far:", want: `(?i)not authorized|forbidden`, fails: true},
	{run: "lxc config trust add --name bob | tail -1 > $WORK/token && lxc config trust list-tokens --format csv", want: `bob`},
	{run: "lxc remote remove far && rm -f $HOME/client.* && lxc remote add far $(cat $WORK/token) --accept-certificate && lxc list far: --format csv -c n", want: `c1`},
	{run: "lxc remote add again $(cat $WORK/token) --accept-certificate </dev/null", want: `(?i)error`, fails: true},
	{run: "lxc config trust list", want: `TYPE`},
	{run: "lxc stop --all -f && lxc list --format csv -c s", want: `STOPPED`},
	{run: "lxc delete c1 && lxc list --format csv -c n", want: `^\s*$`},
	{run: "lxc image delete mine busybox && lxc image list --format csv", want: `^\s*$`},
}
