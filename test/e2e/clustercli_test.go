package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/rpc/rest/api"
	"muster/test/lab"
)

// refused runs a command that is to fail, and wants all of the words in what it
// printed.
func refused(t *testing.T, m *lab.Member, stdin string, args []string, words ...string) {
	t.Helper()
	out, err := run(m, stdin, "muster", args...)
	if err == nil {
		t.Errorf("muster %s was not refused: %s", strings.Join(args, " "), out)
	}
	for _, word := range words {
		if !strings.Contains(out, word) {
			t.Errorf("muster %s printed %q; want %q in it", strings.Join(args, " "), out, word)
		}
	}
}

// The cluster is driven from the command line of any member.
func TestClusterCommands(t *testing.T) {
	t.Parallel()
	members := lab.Cluster(t, 2)
	first, second := members[0], members[1]
	status(t, second, "m1 Online", "m2 Online")

	t.Run("members are listed in every format", func(t *testing.T) {
		var urls []string
		for row := range strings.SplitSeq(strings.TrimSpace(second.Muster("cluster", "list", "--format", "csv")), "\n") {
			if name, rest, _ := strings.Cut(row, ","); name == "m1" || name == "m2" {
				url, _, _ := strings.Cut(rest, ",")
				urls = append(urls, url)
			}
		}
		var listed []api.ClusterMember
		if err := json.Unmarshal([]byte(first.Muster("cluster", "list", "-f", "json")), &listed); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, m := range listed {
			want = append(want, m.URL)
		}
		if diff := cmp.Diff(want, urls); len(want) != 2 || diff != "" {
			t.Errorf("the URLs as CSV differ from those as JSON:\n%s", diff)
		}
		for format, word := range map[string]string{"yaml": "server_name: m2", "table": "| m2 ", "compact": "  m2 "} {
			if out := second.Muster("cluster", "ls", "-f", format); !strings.Contains(out, word) || !strings.Contains(strings.ToUpper(out), "FULLY OPERATIONAL") {
				t.Errorf("as %s: %s; want %q in it", format, out, word)
			}
		}
		// The stock client shows the same table.
		if ours, theirs := second.Muster("cluster", "list", "-f", "csv"), second.Run("lxc", "cluster", "list", "local:", "-f", "csv"); ours != theirs {
			t.Errorf("muster: %s\nlxc: %s", ours, theirs)
		}
	})

	t.Run("a member is shown and changed", func(t *testing.T) {
		for _, command := range []string{"show", "info"} {
			if out := first.Muster("cluster", command, "m2"); !strings.Contains(out, "server_name: m2\n") || !strings.Contains(out, "status: Online\n") {
				t.Errorf("cluster %s m2: %s", command, out)
			}
		}
		second.Muster("cluster", "set", "m1", "user.rack=r1", "user.row=7")
		// What a member reads may be a moment behind what another one wrote.
		eventually(t, func() string {
			if out := first.Muster("cluster", "get", "m1", "user.rack"); out != "r1\n" {
				return fmt.Sprintf("cluster get user.rack printed %q", out)
			}
			return ""
		})
		first.Muster("cluster", "unset", "m1", "user.rack")
		eventually(t, func() string {
			if out := second.Muster("cluster", "get", "m1", "user.rack") + second.Muster("cluster", "get", "m1", "user.row"); out != "\n7\n" {
				return fmt.Sprintf("after unset, user.rack and user.row are %q", out)
			}
			return ""
		})
		shown := first.Muster("cluster", "show", "m1")
		if out, err := run(first, strings.Replace(shown, `description: ""`, "description: in the corner", 1), "muster", "cluster", "edit", "m1"); err != nil {
			t.Errorf("cluster edit: %v: %s", err, out)
		}
		eventually(t, func() string {
			if out := second.Muster("cluster", "list", "-f", "csv"); !strings.Contains(out, ",in the corner,") {
				return "after edit the list is " + out
			}
			return ""
		})
		refused(t, first, strings.Replace(shown, "server_name: m1", "server_name: m9", 1), []string{"cluster", "edit", "m1"}, "muster cluster rename")
		refused(t, first, "", []string{"cluster", "set", "m1", "nosuch.key=1"}, "nosuch.key")
		refused(t, first, "", []string{"cluster", "show", "m9"}, `"m9" not found`, "muster cluster list")

		first.Muster("cluster", "rename", "m2", "spare")
		status(t, second, "m1 Online", "spare Online")
		second.Muster("cluster", "mv", "spare", "m2")
		status(t, first, "m1 Online", "m2 Online")
		refused(t, first, "", []string{"cluster", "rename", "m2", "m1"}, "exists")
	})

	t.Run("tokens are made, listed and withdrawn", func(t *testing.T) {
		token := strings.TrimSpace(first.Muster("--quiet", "cluster", "add", "m7"))
		parsed, err := api.ParseClusterMemberJoinToken(token)
		if err != nil || parsed.ServerName != "m7" {
			t.Fatalf("cluster add printed %q: %+v, %v", token, parsed, err)
		}
		// Operations reach the other members a moment later.
		tokens := func(m *lab.Member, want string) {
			eventually(t, func() string {
				if out := m.Muster("cluster", "list-tokens", "-f", "csv"); !strings.HasPrefix(out, want) || want == "" && out != "" {
					return fmt.Sprintf("list-tokens prints %q; want %q", out, want)
				}
				return ""
			})
		}
		tokens(second, "m7,"+token+",")
		refused(t, second, "", []string{"cluster", "add", "--name", "m7"}, "waits already", "muster cluster revoke-token m7")
		refused(t, second, "", []string{"cluster", "add", "m1"}, "exists already")
		if out := second.Muster("__complete", "cluster", "revoke-token", ""); !strings.HasPrefix(out, "m7\n") {
			t.Errorf("revoke-token completes to %q", out)
		}
		second.Muster("cluster", "revoke-token", "m7")
		tokens(second, "")
		tokens(first, "")
		refused(t, first, "", []string{"cluster", "revoke-token", "m7"}, "no join token", "list-tokens")
	})

	t.Run("what was done already is said with what to do instead", func(t *testing.T) {
		refused(t, first, "", []string{"cluster", "enable", "m1"}, "already, as m1", "muster cluster add")
		refused(t, first, "", []string{"cluster", "remove", "--force", "m2"}, "--force --yes m2")
		refused(t, first, "", []string{"cluster", "remove", "m9"}, `"m9" not found`)
	})

	t.Run("--target names a member", func(t *testing.T) {
		second.Muster("init", "--empty", "c1", "--target", "m1", "--no-profiles", "--storage", "default")
		if out := second.Muster("list", "--format", "csv"); !strings.HasSuffix(strings.TrimSpace(out), ",m1") {
			t.Errorf("list printed %q; want c1 on m1", out)
		}
		if out := first.Muster("list"); !strings.Contains(out, "LOCATION") {
			t.Errorf("list shows no column LOCATION: %s", out)
		}
		for _, list := range [][]string{{"operation", "list"}, {"storage", "volume", "list", "default"}} {
			if out := first.Muster(list...); !strings.Contains(out, "LOCATION") {
				t.Errorf("%v shows no column LOCATION: %s", list, out)
			}
		}
		if ours, theirs := first.Muster("storage", "list", "-f", "csv"), first.Run("lxc", "storage", "list", "local:", "-f", "csv"); ours != theirs {
			t.Errorf("storage list: muster %q, lxc %q", ours, theirs)
		}
		if out := second.Muster("storage", "show", "default", "--target", "m1"); !strings.Contains(out, first.Dir) {
			t.Errorf("storage show --target m1: %s; want its source below %s", out, first.Dir)
		}
		// What m2 answers says that it was m2 that was asked.
		out := first.Muster("config", "get", "core.https_address", "--target", "m2")
		if own := second.Muster("config", "get", "core.https_address"); out != own || own == "\n" {
			t.Errorf("m2's address is %q when asked through m1, %q by itself", out, own)
		}
		for _, command := range [][]string{
			{"init", "--empty", "c2"},
			{"copy", "c1", "c2"},
			{"storage", "create", "p2", "dir"},
			{"network", "create", "n2"},
			{"storage", "info", "default"},
			{"storage", "get", "default", "source"},
			{"network", "info", "musterbr0"},
		} {
			refused(t, first, "", append(command, "--target", "m9"), "m9")
		}
		refused(t, first, "", []string{"cluster", "remove", "m1"}, "instances", "location=m1")
		if out := first.Muster("__complete", "launch", "busybox", "--target", ""); !strings.HasPrefix(out, "m1\nm2\n") {
			t.Errorf("--target completes to %q", out)
		}
		if out := first.Muster("__complete", "cluster", "show", "m"); !strings.HasPrefix(out, "m1\nm2\n") {
			t.Errorf("cluster show completes to %q", out)
		}
		second.Muster("delete", "c1")
	})

	t.Run("groups of members are made, filled and emptied", func(t *testing.T) {
		for _, step := range []struct{ command, want string }{
			{"cluster group create fast --description quick", "Cluster group fast created\n"},
			{"cluster group add m2 fast", "Cluster member m2 added to group fast\n"},
			{"cluster group list -f csv", "default,Default cluster group,2\nfast,quick,1\n"},
			{"cluster group remove m2 default", "Cluster member m2 removed from group default\n"},
			{"cluster group show fast", "description: quick\nmembers:\n- m2\nname: fast\n"},
			{"cluster group rename fast quick", "Cluster group fast renamed to quick\n"},
			{"__complete launch busybox --target @", "@default\n@quick\n:4\n"},
			{"__complete cluster group add m2 q", "quick\n:4\n"},
			{"cluster group assign m2 default", "Cluster member m2 is in default\n"},
			{"cluster group assign m2 default,quick", "Cluster member m2 is in default, quick\n"},
		} {
			if out := second.Muster(strings.Fields(step.command)...); out != step.want {
				t.Errorf("muster %s printed %q; want %q", step.command, out, step.want)
			}
		}
		for _, format := range []string{"table", "json", "yaml", "compact"} {
			if out := second.Muster("cluster", "group", "ls", "-f", format); !strings.Contains(out, "quick") {
				t.Errorf("as %s: %s", format, out)
			}
		}
		if out, err := run(second, "description: slow\nmembers: [m1, m2]\n", "muster", "cluster", "group", "edit", "quick"); err != nil {
			t.Errorf("cluster group edit: %v: %s", err, out)
		}
		eventually(t, func() string {
			if out := first.Run("lxc", "cluster", "group", "list", "local:", "-f", "csv"); !strings.Contains(out, "quick,slow,2\n") {
				return "after edit lxc lists " + out
			}
			return ""
		})
		refused(t, second, "name: other\nmembers: []\n", []string{"cluster", "group", "edit", "quick"}, "muster cluster group rename")
		refused(t, second, "", []string{"cluster", "group", "delete", "quick"}, "among them", "muster cluster group remove MEMBER quick")
		refused(t, second, "", []string{"cluster", "group", "add", "m1", "quick"}, "already")
		refused(t, second, "", []string{"cluster", "group", "show", "none"}, "not found", "muster cluster group list")
		second.Muster("cluster", "group", "remove", "m1", "quick")
		refused(t, second, "", []string{"cluster", "group", "remove", "m1", "quick"}, "m1 is not in the cluster group quick, but in default")
	})

	t.Run("a placement is explained", func(t *testing.T) {
		explain := []string{"placement", "explain", "--no-profiles", "--storage", "default", "--target", "@quick"}
		out := second.Muster(append(explain, "-f", "csv")...)
		if !strings.HasPrefix(out, "m1,,,") || !strings.Contains(out, ",target,is not in group quick\nm2,YES,") {
			t.Errorf("placement explain printed %q", out)
		}
		var shown api.Placement
		if err := json.Unmarshal([]byte(second.Muster(append(explain, "--format=json")...)), &shown); err != nil || shown.Member != "m2" || len(shown.Members) != 2 {
			t.Errorf("as JSON: %+v, %v", shown, err)
		}
		for format, word := range map[string]string{"yaml": "filter: target\n", "table": "| REFUSED BY |"} {
			if out := second.Muster(append(explain, "--format", format)...); !strings.Contains(out, word) {
				t.Errorf("as %s: %s; want %q in it", format, out, word)
			}
		}
		refused(t, second, "", append(explain, "--network", "nosuch"), `network "nosuch" not found`)
		refused(t, second, "", append(explain, "-c", "limits.memory=900TiB"), "is short of memory", "Error: ")
		refused(t, second, "", []string{"placement", "explain", "--no-profiles", "--target", "m9"}, `"m9" not found`)
		if out := second.Muster("list", "-f", "csv"); out != "" {
			t.Errorf("explaining made instances: %s", out)
		}
		second.Muster("cluster", "group", "assign", "m2", "default")
		second.Muster("cluster", "group", "delete", "quick")
	})

	t.Run("a pool is made part by part, and an instance where --target says", func(t *testing.T) {
		for i, m := range members {
			name := fmt.Sprintf("m%d", i+1)
			if err := os.Mkdir(m.Dir+"/parts", 0o711); err != nil {
				t.Fatal(err)
			}
			out := first.Muster("storage", "create", "parts", "dir", "source="+m.Dir+"/parts", "--target", name)
			if want := "Storage pool parts pending on member " + name + "\n"; out != want {
				t.Errorf("storage create --target printed %q; want %q", out, want)
			}
		}
		if out := second.Muster("storage", "create", "parts", "dir"); out != "Storage pool parts created\n" {
			t.Errorf("storage create printed %q", out)
		}
		if out := first.Muster("storage", "get", "parts", "source", "--target", "m2"); out != second.Dir+"/parts\n" {
			t.Errorf("m2's source is %q", out)
		}
		first.Muster("create", "--empty", "c2", "--target", "m2", "--no-profiles", "--storage", "parts")
		if out := first.Muster("list", "-c", "nL", "-f", "csv"); out != "c2,m2\n" {
			t.Errorf("list printed %q; want c2 on m2", out)
		}
		if out := first.Muster("storage", "volume", "list", "parts", "-f", "csv"); !strings.HasSuffix(out, ",m2\n") {
			t.Errorf("the pool's volumes are %q; want one on m2", out)
		}
		refused(t, first, "", []string{"cluster", "remove", "m2"}, "instances", "location=m2")
		first.Muster("delete", "c2")
		first.Muster("storage", "delete", "parts")
	})

	t.Run("a server joins by answers from a pipe and is removed", func(t *testing.T) {
		third := lab.Start(t, lab.Options{NoInit: true})
		third.Purges()
		token := first.Muster("-q", "cluster", "add", "m3")
		refused(t, third, "yes\nyes\n"+token, []string{"init"}, "no answer to")
		out, err := run(third, "yes\nyes\n"+token+lab.Address()+"\n\n\n", "muster", "init")
		if err != nil || !strings.Contains(out, "Made this server the member m3 of the cluster") {
			t.Fatalf("muster init: %v: %s", err, out)
		}
		status(t, first, "m1 Online", "m2 Online", "m3 Online")
		refused(t, third, token, []string{"cluster", "enable", "m3"}, "already, as m3")
		if out := first.Muster("cluster", "remove", "m3"); out != "Member m3 removed\n" {
			t.Errorf("cluster remove printed %q", out)
		}
		status(t, second, "m1 Online", "m2 Online")
	})
}

// A preseed begins a cluster, another one joins it; both may be applied again.
func TestClusterByPreseed(t *testing.T) {
	first, second := lab.Start(t, lab.Options{NoInit: true}), lab.Start(t, lab.Options{NoInit: true})
	first.Purges()
	second.Purges(first)
	refused(t, first, "", []string{"cluster", "list"}, "in no cluster", "muster cluster enable NAME")
	refused(t, first, "", []string{"cluster", "enable", "m1"}, "core.https_address", "muster config set core.https_address")

	begin := fmt.Sprintf(`
config: {core.https_address: "%s"}
storage_pools: [{name: data, driver: dir}]
profiles: [{name: default, devices: {root: {type: disk, path: /, pool: data}}}]
cluster: {enabled: true, server_name: m1}
`, lab.Address())
	for range 2 {
		if out, err := run(first, begin, "muster", "init", "--preseed"); err != nil {
			t.Fatalf("begin a cluster: %v: %s", err, out)
		}
	}
	status(t, first, "m1 Online")
	refused(t, first, strings.Replace(begin, "m1", "m9", 1), []string{"init", "--preseed"}, `already, as "m1" and not as "m9"`)

	token := strings.TrimSpace(first.Muster("-q", "cluster", "add", "m2"))
	join := fmt.Sprintf("cluster: {enabled: true, server_name: m2, server_address: '%s', cluster_token: '%s', member_config: []}\n", lab.Address(), token)
	refused(t, second, strings.Replace(join, "name: m2", "name: m8", 1), []string{"init", "--preseed"}, `is for member "m2"`)
	for range 2 {
		if out, err := run(second, join, "musterd", "init", "--preseed"); err != nil {
			t.Fatalf("join the cluster: %v: %s", err, out)
		}
	}
	status(t, second, "m1 Online", "m2 Online")
	if _, err := second.Do(t.Context(), http.MethodGet, "/1.0/storage-pools/data", nil); err != nil {
		t.Errorf("the pool of the cluster, asked for on m2: %v", err)
	}

	dump := first.Muster("init", "--dump")
	if !strings.Contains(dump, "cluster:\n  server_name: m1\n  enabled: true\n") {
		t.Errorf("the dump says nothing of the cluster:\n%s", dump)
	}
	file := first.Dir + "/seed.yaml"
	if err := os.WriteFile(file, []byte(dump), 0o600); err != nil {
		t.Fatal(err)
	}
	first.Muster("init", "--preseed="+file)
	if again := first.Run("musterd", "init", "--dump"); again != dump {
		t.Errorf("applying the dump changed it:\n%s", cmp.Diff(dump, again))
	}
}
