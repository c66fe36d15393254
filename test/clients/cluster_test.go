package clients

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/test/lab"
)

// clusterSteps are the stock client's cluster commands, each through the member it names.
var clusterSteps = []struct {
	member int
	step
}{
	{1, step{run: "lxc cluster list local: --format=csv", want: `m1,https://.*database.*m2,https.*m3,https.*ONLINE`}},
	{2, step{run: "lxc cluster list local:", want: `NAME.*URL.*ROLES.*ARCHITECTURE.*FAILURE DOMAIN.*STATE.*MESSAGE`}},
	{3, step{run: "lxc cluster show local:m2", want: `server_name: m2.*status: Online`}},
	{1, step{run: "lxc cluster get local:m2 user.rack", want: `does not exist`, fails: true}},
	{2, step{run: "lxc cluster set local:m2 user.rack=r7", want: `^$`}},
	{3, step{run: "lxc cluster get local:m2 user.rack", want: `^r7\n$`}},
	{1, step{run: "lxc cluster unset local:m2 user.rack", want: `^$`}},
	{1, step{run: "lxc cluster set local:m2 scheduler.instance=often", want: `scheduler.instance`, fails: true}},
	{2, step{run: "lxc cluster show local:m9", want: `not found`, fails: true}},
	{1, step{run: "lxc cluster enable local: again", want: `[Cc]luster`, fails: true}},
	{1, step{run: "lxc cluster add local:m4", want: `Member m4 join token:`}},
	{2, step{run: "lxc cluster list-tokens local: --format=csv", want: `m4`}},
	{3, step{run: "lxc cluster add local:m4", want: `waits already`, fails: true}},
	{3, step{run: "lxc cluster revoke-token local:m4", want: `deleted`}},
	{1, step{run: "lxc cluster list-tokens local: --format=csv", want: `^$`}},
	{1, step{run: "lxc cluster group create local:fast", want: `fast created`}},
	{2, step{run: "lxc cluster group remove local:m2 default", want: `[Gg]roup`, fails: true}},
	{2, step{run: "lxc cluster group assign local:m2 default,fast", want: ``}},
	{3, step{run: "lxc cluster group list local: --format=csv", want: `fast,,1`}},
	{1, step{run: "lxc cluster group show local:fast", want: `members:\n- m2`}},
	{1, step{run: "lxc cluster group rename local:fast quick", want: ``}},
	{1, step{run: "lxc image import $IMAGE local: --alias bb", want: `Image imported`}},
	{2, step{run: "lxc launch local:bb local:c1 --target @quick", want: `Starting c1`}},
	{3, step{run: "lxc list local: --format=csv -c nsL", want: `^c1,RUNNING,m2\n$`}},
	{1, step{run: "lxc info local:c1", want: `Location: m2`}},
	{1, step{run: "lxc exec local:c1 -- hostname", want: `^c1\n$`}},
	{3, step{run: "lxc exec local:c1 -- sh -c 'exit 3'; test $? = 3", want: `^$`}},
	{3, step{run: "echo hello | lxc file push - local:c1/root/f", want: ``}},
	{1, step{run: "lxc file pull local:c1/root/f -", want: `^hello\n$`}},
	{1, step{run: "lxc snapshot local:c1 s0", want: `^$`}},
	{3, step{run: "lxc move local:c1 --target m3", want: ``}},
	{2, step{run: "lxc list local: --format=csv -c nsL", want: `^c1,RUNNING,m3\n$`}},
	{2, step{run: "lxc exec local:c1 -- cat /root/f", want: `^hello\n$`}},
	{2, step{run: "lxc copy local:c1 local:c2 --target m1", want: ``}},
	{2, step{run: "lxc copy local:c1/s0 local:c3 --target m2", want: ``}},
	{1, step{run: "lxc list local: --format=csv -c nsL", want: `c1,RUNNING,m3\nc2,STOPPED,m1\nc3,STOPPED,m2`}},
	{3, step{run: "lxc start local:c2 local:c3", want: `^$`}},
	{1, step{run: "lxc exec local:c3 -- cat /root/f", want: `^hello\n$`}},
	{3, step{run: "muster launch bb c4 --target m1 && muster delete --force c4", want: `c4 is on cluster member m1\nStarting c4`}},
	{3, step{run: "muster launch debian/12 c5", want: `muster image build debian --suite bookworm --alias debian/12`, fails: true}},
	{2, step{run: "lxc console local:c1 --show-log", want: `Console log`}},
	{1, step{run: "lxc operation list local: --format=csv", want: ``}},
	{1, step{run: "lxc storage create local:fast dir --target m1", want: `pending on member m1`}},
	{1, step{run: "lxc storage create local:fast dir --target m2", want: `pending on member m2`}},
	{1, step{run: "lxc storage create local:fast dir --target m3", want: `pending on member m3`}},
	{1, step{run: "lxc storage set local:fast source=$POOL --target m2", want: `^$`}},
	{2, step{run: "lxc storage create local:fast dir", want: `fast created`}},
	{1, step{run: "test $(lxc storage get local:fast source --target m2) = $POOL", want: `^$`}},
	{2, step{run: "lxc storage list local: --format=csv", want: `fast,dir,,0,CREATED`}},
	{3, step{run: "lxc storage show local:fast --target m2", want: `source: /.*locations:\n- m1\n- m2\n- m3`}},
	{3, step{run: "lxc storage info local:fast --target m1", want: `total space`}},
	{1, step{run: "lxc storage volume list local:default --format=csv", want: `container,c1.*m3`}},
	{1, step{run: "lxc storage delete local:fast", want: `deleted`}},
	{1, step{run: "lxc network create local:nx --target m1", want: `pending on member m1`}},
	{1, step{run: "lxc network create local:nx --target m2", want: `pending on member m2`}},
	{1, step{run: "lxc network create local:nx --target m3", want: `pending on member m3`}},
	{3, step{run: "lxc network create local:nx ipv4.address=10.199.3.1/24 ipv6.address=none", want: `nx created`}},
	{2, step{run: "lxc network show local:nx", want: `locations:\n- m1\n- m2\n- m3`}},
	{2, step{run: "lxc network info local:nx --target m1", want: `10.199.3.1`}},
	{1, step{run: "lxc network set local:nx ipv4.dhcp.expiry 20m", want: `^$`}},
	{3, step{run: "lxc network get local:nx ipv4.dhcp.expiry", want: `^20m\n$`}},
	{3, step{run: "lxc network delete local:nx", want: `deleted`}},
	{2, step{run: "lxc cluster rename local:m3 third", want: `renamed to third`}},
	{1, step{run: "lxc list local: --format=csv -c nL", want: `c1,third`}},
	{1, step{run: "lxc exec local:c1 -- hostname", want: `^c1\n$`}},
	{1, step{run: "lxc cluster remove local:third", want: `move or delete them first`, fails: true}},
	{2, step{run: "lxc stop --force local:c1 local:c2 local:c3", want: `^$`}},
	{1, step{run: "lxc delete local:c1 local:c2 local:c3", want: `^$`}},
	{1, step{run: "lxc cluster group assign local:m2 default", want: ``}},
	{1, step{run: "lxc cluster group delete local:quick", want: `deleted`}},
	{1, step{run: "lxc cluster remove local:third", want: `removed`}},
	{2, step{run: "lxc cluster list local: --format=csv", want: `m1.*ONLINE.*m2.*ONLINE`}},
	{3, step{run: "lxc info local: | grep server_clustered", want: `server_clustered: false`, poll: true}},
}

func TestLXCCluster(t *testing.T) {
	lab.NeedsRoot(t)
	needs(t, "lxc", "lxd-client")
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t)})
	step{run: "lxc storage list local: --format=csv", want: `CREATED`, poll: true}.check(t, members[0])
	step{run: "lxc cluster list local: --format=csv | grep -c ONLINE", want: `^3\n$`, poll: true}.check(t, members[0])
	pool := filepath.Join(members[1].Dir, "own-pool")
	if err := os.Mkdir(pool, 0o711); err != nil {
		t.Fatal(err)
	}
	replace := strings.NewReplacer("$IMAGE", lab.BusyboxFile(t), "$POOL", pool)
	for _, s := range clusterSteps {
		s.run = replace.Replace(s.run)
		if !s.poll {
			caughtUp(t, members[s.member-1])
		}
		start := time.Now()
		s.check(t, members[s.member-1])
		t.Logf("%6d ms  m%d: %s", time.Since(start).Milliseconds(), s.member, s.run)
	}
}

// caughtUp returns when the member knows what was done through the others: asked for what
// is not there, it looks again with all that the cluster knows.
func caughtUp(t *testing.T, m *lab.Member) {
	t.Helper()
	answer, err := m.Request(t.Context(), http.MethodGet, "/1.0/profiles/nobody", nil, nil)
	if err != nil || answer.Code != http.StatusNotFound {
		t.Fatalf("a profile that is not there: %d %q, %v; want 404", answer.Code, answer.Error, err)
	}
}

// The stock client waits for operations on the events of the member it talks to. While
// members die and come back, some commands fail, and none hangs.
//
// MUSTER_CLIENTS_OPERATIONS is how many commands there are, 90 unless it is set.
func TestLXCWhileMembersComeAndGo(t *testing.T) {
	lab.NeedsRoot(t)
	needs(t, "lxc", "lxd-client")
	count := 90
	if value := os.Getenv("MUSTER_CLIENTS_OPERATIONS"); value != "" {
		var err error
		if count, err = strconv.Atoi(value); err != nil {
			t.Fatal(err)
		}
	}
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t)})
	step{run: "lxc storage list local: --format=csv", want: `CREATED`, poll: true}.check(t, members[0])
	step{run: "lxc image import " + lab.BusyboxFile(t) + " local: --alias bb", want: `imported`}.check(t, members[0])
	// Every member has the image before the first of them dies.
	for i := range members {
		step{run: fmt.Sprintf("lxc init local:bb local:warm%d --target m%d && lxc delete local:warm%d", i, i+1, i), want: ``, poll: true}.check(t, members[0])
	}

	var mu sync.Mutex
	up := []bool{true, true, true}
	pick := func() (int, *lab.Member) {
		mu.Lock()
		defer mu.Unlock()
		for {
			if i := rand.IntN(3); up[i] {
				return i, members[i]
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var breaking sync.WaitGroup
	breaking.Go(func() {
		for round := 0; ; round++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			victim := round % 3
			mu.Lock()
			up[victim] = false
			mu.Unlock()
			members[victim].Kill()
			time.Sleep(2500 * time.Millisecond)
			members[victim].Up()
			// The next must not fall before this one counts again.
			time.Sleep(2 * time.Second)
			mu.Lock()
			up[victim] = true
			mu.Unlock()
		}
	})
	var working sync.WaitGroup
	var failed, done int
	for worker := range 3 {
		working.Go(func() {
			for n := range count / 3 {
				name := fmt.Sprintf("w%d-%d", worker, n/5)
				line := []string{
					"lxc init local:bb local:" + name, "lxc start local:" + name, "lxc exec local:" + name + " -- true",
					"lxc stop --force local:" + name, "lxc delete --force local:" + name,
				}[n%5]
				i, m := pick()
				bounded, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 90*time.Second)
				cmd := exec.CommandContext(bounded, "bash", "-c", line)
				cmd.Env = m.Env()
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				err := cmd.Run()
				hung := bounded.Err() != nil
				cancel()
				mu.Lock()
				done++
				if err != nil {
					failed++
				}
				mu.Unlock()
				if hung {
					t.Errorf("hangs through m%d: %s\n%s", i+1, line, out.String())
				}
			}
		})
	}
	working.Wait()
	stop()
	breaking.Wait()
	t.Logf("%d of %d commands failed with a member; none hung", failed, done)
	if failed > done*2/3 {
		t.Errorf("%d of %d commands failed", failed, done)
	}
}
