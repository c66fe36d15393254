package table

import (
	"cmp"
	"slices"
	"strings"
)

// SortRows orders rows by their first cell, numbers in it by value: c2 comes
// before c10.
func SortRows(rows [][]string) {
	slices.SortStableFunc(rows, func(a, b []string) int { return Natural(a[0], b[0]) })
}

// Natural compares text with numbers in it the way people do.
func Natural(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		dx, dy := digits(x), digits(y)
		if dx > 0 && dy > 0 {
			nx, ny := strings.TrimLeft(x[:dx], "0"), strings.TrimLeft(y[:dy], "0")
			if order := cmp.Or(cmp.Compare(len(nx), len(ny)), cmp.Compare(nx, ny)); order != 0 {
				return order
			}
			x, y = x[dx:], y[dy:]
			continue
		}
		if x[0] != y[0] {
			return cmp.Compare(x[0], y[0])
		}
		x, y = x[1:], y[1:]
	}
	// "a01" and "a1" have the same value and still need an order.
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b))
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
