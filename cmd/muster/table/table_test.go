package table_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/cmd/muster/table"
)

var data = table.Data{
	Header: []string{"NAME", "STATE", "IPV4"},
	Rows: [][]string{
		{"c1", "RUNNING", "10.0.0.1 (eth0)\n10.0.1.1 (eth1)"},
		{"c\x1b2", "STOPPED", ""},
	},
	Values: []map[string]string{{"name": "c1"}, {"name": "c2"}},
}

func TestRender(t *testing.T) {
	for name, tc := range map[string]struct{ format, want string }{
		"a table looks like lxc's": {"table", `
+------+---------+-----------------+
| NAME |  STATE  |       IPV4      |
+------+---------+-----------------+
| c1   | RUNNING | 10.0.0.1 (eth0) |
|      |         | 10.0.1.1 (eth1) |
+------+---------+-----------------+
| c?2  | STOPPED |                 |
+------+---------+-----------------+
`},
		"compact has no frame": {"compact", `
  NAME  STATE    IPV4
  c1    RUNNING  10.0.0.1 (eth0)
                 10.0.1.1 (eth1)
  c?2   STOPPED
`},
		"csv has no header, and cells as they are": {"csv", "\nc1,RUNNING,\"10.0.0.1 (eth0)\n10.0.1.1 (eth1)\"\nc\x1b2,STOPPED,\n"},
		"json shows the values":                    {"json", "\n" + `[{"name":"c1"},{"name":"c2"}]` + "\n"},
		"yaml shows the values":                    {"yaml", "\n- name: c1\n- name: c2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := table.Render(&b, tc.format, data); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want[1:], b.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if err := table.Render(&strings.Builder{}, "xml", data); err == nil {
		t.Error("xml was accepted")
	}
	var empty strings.Builder
	if err := table.Render(&empty, "table", table.Data{Header: []string{"NAME"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("+------+\n| NAME |\n+------+\n", empty.String()); diff != "" {
		t.Errorf("an empty table (-want +got):\n%s", diff)
	}
}

func TestNatural(t *testing.T) {
	rows := [][]string{{"c10"}, {"c2"}, {"b"}, {"c02"}, {"c"}, {"c2b1"}, {"1"}, {""}}
	table.SortRows(rows)
	want := [][]string{{""}, {"1"}, {"b"}, {"c"}, {"c02"}, {"c2"}, {"c2b1"}, {"c10"}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
