package rest

import (
	"encoding/json"
	"testing"

	"muster/cluster"
	"muster/state"
)

// A change is read over what is shown: that must leave the member as it is.
func TestAShownMemberIsACopy(t *testing.T) {
	m := cluster.MemberInfo{
		Member: &state.Member{Config: state.Config{"user.a": "1"}, Groups: []string{"default"}}, Roles: []string{"database"},
	}
	req := showMember(m).ClusterMemberPut
	if err := json.Unmarshal([]byte(`{"roles":["king"],"groups":["other"],"config":{"user.a":"2"}}`), &req); err != nil {
		t.Fatal(err)
	}
	if m.Roles[0] != "database" || m.Groups[0] != "default" || m.Config["user.a"] != "1" {
		t.Errorf("the member became %+v", m)
	}
	if _, err := memberChange(req); err == nil {
		t.Error("a client gave a member another role")
	}
}
