package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Addresses are what the member's networks keep for instances: reservations, as
// NETWORK/OWNER:DEVICE, and the leases that have been handed out, as the DHCP server
// writes them down.
func (m *Member) Addresses() []string {
	var kept []string
	reservations, _ := filepath.Glob(filepath.Join(m.Dir, "networks", "*", "hosts", "*"))
	for _, path := range reservations {
		kept = append(kept, "reservation "+filepath.Base(filepath.Dir(filepath.Dir(path)))+"/"+filepath.Base(path))
	}
	files, _ := filepath.Glob(filepath.Join(m.Dir, "networks", "*", "leases"))
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // the network went
		}
		for line := range strings.Lines(string(content)) {
			// The server's own identity is no lease.
			if !strings.HasPrefix(line, "duid ") {
				kept = append(kept, "lease "+filepath.Base(filepath.Dir(path))+"/"+strings.TrimSpace(line))
			}
		}
	}
	slices.Sort(kept)
	return kept
}
