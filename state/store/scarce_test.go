package store

import (
	"testing"

	"muster/state"
)

// Every command is either for stopping and deleting, and so is taken when the disks are
// full, or is not.
func TestWhatIsTakenWhenDisksAreFull(t *testing.T) {
	taken := map[string]bool{
		"bootstrap": true, "end": true, "renew": true, "set-instance-state": true, "consume-token": true, "clear-member": true, "lose-member": true,
		"delete-alias": true, "delete-certificate": true, "delete-group": true, "delete-image": true, "delete-instance": true, "delete-member": true,
		"delete-network": true, "delete-pool": true, "delete-profile": true, "delete-project": true, "delete-snapshot": true, "delete-token": true,
		"delete-volume": true, "drop-network-local": true, "drop-pool-local": true, "remove-image-member": true,
	}
	for name, decode := range commands {
		command, err := decode([]byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if got := frees(command); got != taken[name] {
			t.Errorf("%s is taken on full disks: %t; want %t", name, got, taken[name])
		}
	}
	if !frees(Begin{Intent: state.Intent{Kind: "delete"}}) {
		t.Error("a deletion can't begin on full disks")
	}
	if frees(Begin{Intent: state.Intent{Kind: "restore"}}) {
		t.Error("a restore can begin on full disks")
	}
}
