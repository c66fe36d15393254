package main

import (
	"fmt"
	"time"

	"muster/rpc/rest/api"
)

// size writes bytes in units of 1024, as lxc does for memory and disks.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.2f%ciB", value, units[unit])
}

// sizeDecimal writes bytes in units of 1000, as lxc does for files and
// traffic.
func sizeDecimal(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	value, unit := float64(n)/1000, 0
	for value >= 1000 && unit < len(units)-1 {
		value, unit = value/1000, unit+1
	}
	return fmt.Sprintf("%.2f%cB", value, units[unit])
}

// moment writes a time to the minute; one that is not set is empty.
func moment(t time.Time) string {
	if api.IsUnset(t) {
		return ""
	}
	return t.Local().Format("2006/01/02 15:04 MST")
}

// yesNo writes a claim.
func yesNo(claim bool) string {
	if claim {
		return "YES"
	}
	return "NO"
}

// elided keeps the first n runes of a text.
func elided(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n])
}
