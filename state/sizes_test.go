package state

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	const units = "; use B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB or EiB"
	for name, tc := range map[string]struct {
		value   string
		want    int64
		wantErr string
	}{
		"plain bytes":                  {"4096", 4096, "<nil>"},
		"bytes":                        {"1B", 1, "<nil>"},
		"decimal":                      {"512MB", 512e6, "<nil>"},
		"decimal thousands":            {"3kB", 3000, "<nil>"},
		"binary":                       {"10GiB", 10 << 30, "<nil>"},
		"a blank before the unit":      {"10 GiB", 10 << 30, "<nil>"},
		"nothing at all of it":         {"0", 0, "<nil>"},
		"the largest":                  {"7EiB", 7 << 60, "<nil>"},
		"too large for the unit":       {"8EiB", 0, `size "8EiB" is larger than can be counted`},
		"too large to count":           {"99999999999999999999", 0, `size "99999999999999999999" is larger than can be counted`},
		"a unit of memory sticks":      {"10G", 0, `size "10G": unknown unit "G"` + units},
		"a unit that nobody knows":     {"10 bananas", 0, `size "10 bananas": unknown unit "bananas"` + units},
		"a unit in small letters":      {"10gib", 0, `size "10gib": unknown unit "gib"` + units},
		"a share":                      {"10%", 0, `size "10%": unknown unit "%"` + units},
		"a fraction":                   {"1.5GiB", 0, `size "1.5GiB": want a whole number with a unit, such as 512MiB or 10GB`},
		"less than nothing":            {"-1GiB", 0, `size "-1GiB": want a whole number with a unit, such as 512MiB or 10GB`},
		"only a unit":                  {"GiB", 0, `size "GiB": want a whole number with a unit, such as 512MiB or 10GB`},
		"nothing":                      {"", 0, `size "": want a whole number with a unit, such as 512MiB or 10GB`},
		"two units":                    {"1MBMB", 0, `size "1MBMB": unknown unit "MBMB"` + units},
		"a blank and nothing after it": {"10 ", 0, `size "10 ": unknown unit ""` + units},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseSize(tc.value)
			if got != tc.want {
				t.Errorf("ParseSize(%q) = %d; want %d", tc.value, got, tc.want)
			}
			wantError(t, tc.value, err, tc.wantErr)
		})
	}
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"1", "512MiB", "7EiB", "-1", "1 kB", "9223372036854775807", "k"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		size, err := ParseSize(value)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || size != 0 {
				t.Errorf("ParseSize(%q) = %d, %v; want 0 and ErrInvalid", value, size, err)
			}
			return
		}
		if again, err := ParseSize(fmt.Sprint(size)); size < 0 || err != nil || again != size {
			t.Errorf("ParseSize(%q) = %d, which reads as %d, %v", value, size, again, err)
		}
	})
}

func TestTruthValues(t *testing.T) {
	for value, want := range map[string]bool{
		"true": true, "1": true, "yes": true, "on": true, "True": true, "ON": true,
		"false": false, "0": false, "no": false, "off": false, "": false,
	} {
		if got, err := ParseBool(value); got != want || err != nil {
			t.Errorf("ParseBool(%q) = %v, %v; want %v", value, got, err, want)
		}
	}
	_, err := ParseBool("maybe")
	wantError(t, "maybe", err, `"maybe" is not a truth value: want true or false`)
}

func TestCPULimits(t *testing.T) {
	const want = ": want a number of processors (2) or a set of them (0-1,3)"
	for name, tc := range map[string]struct {
		value   string
		count   int
		set     string
		wantErr string
	}{
		"a number":                  {"2", 2, "", "<nil>"},
		"a range":                   {"0-3", 0, "0-3", "<nil>"},
		"one processor pinned":      {"1-1", 0, "1-1", "<nil>"},
		"a set":                     {"0-1,3", 0, "0-1,3", "<nil>"},
		"none":                      {"0", 0, "", `limits.cpu "0"` + want},
		"less than none":            {"-1", 0, "", `limits.cpu "-1": "-1" is not a processor, such as 3, or a range that ends no lower than it begins, such as 0-1`},
		"a word":                    {"all", 0, "", `limits.cpu "all"` + want},
		"a range that runs back":    {"3-1", 0, "", `limits.cpu "3-1": "3-1" is not a processor, such as 3, or a range that ends no lower than it begins, such as 0-1`},
		"a set with a hole":         {"0,,1", 0, "", `limits.cpu "0,,1": "" is not a processor, such as 3, or a range that ends no lower than it begins, such as 0-1`},
		"more than anybody has":     {"99999999", 0, "", `limits.cpu "99999999"` + want},
		"a fraction of a processor": {"1.5", 0, "", `limits.cpu "1.5"` + want},
	} {
		t.Run(name, func(t *testing.T) {
			count, set, err := ParseCPULimit(tc.value)
			if count != tc.count || set != tc.set {
				t.Errorf("ParseCPULimit(%q) = %d, %q; want %d, %q", tc.value, count, set, tc.count, tc.set)
			}
			wantError(t, tc.value, err, tc.wantErr)
		})
	}
}

func TestCPUAllowances(t *testing.T) {
	wrong := func(value string) string {
		return fmt.Sprintf("limits.cpu.allowance %q: want a share (50%%) or time of each period (25ms/100ms)", value)
	}
	for name, tc := range map[string]struct {
		value   string
		want    CPUAllowance
		wantErr string
	}{
		"a share":                       {"50%", CPUAllowance{Percent: 50}, "<nil>"},
		"a quota":                       {"25ms/100ms", CPUAllowance{Quota: 25 * time.Millisecond, Period: 100 * time.Millisecond}, "<nil>"},
		"more than one processor":       {"250ms/100ms", CPUAllowance{Quota: 250 * time.Millisecond, Period: 100 * time.Millisecond}, "<nil>"},
		"no share":                      {"0%", CPUAllowance{}, wrong("0%")},
		"more than all":                 {"101%", CPUAllowance{}, wrong("101%")},
		"no period":                     {"25ms", CPUAllowance{}, wrong("25ms")},
		"a period longer than a second": {"1s/2s", CPUAllowance{}, wrong("1s/2s")},
		"no time":                       {"0ms/100ms", CPUAllowance{}, wrong("0ms/100ms")},
		"numbers without unit":          {"25/100", CPUAllowance{}, wrong("25/100")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCPUAllowance(tc.value)
			if got != tc.want {
				t.Errorf("ParseCPUAllowance(%q) = %+v; want %+v", tc.value, got, tc.want)
			}
			wantError(t, tc.value, err, tc.wantErr)
		})
	}
}

func TestExpiries(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		value   string
		want    time.Time
		wantErr string
	}{
		"none":                           {"", time.Time{}, "<nil>"},
		"minutes and months differ":      {"1M 1m", now.Add(time.Minute).AddDate(0, 1, 0), "<nil>"},
		"all units":                      {"1y 1w 2d 3H 4M 5S", now.AddDate(1, 0, 9).Add(3*time.Hour + 4*time.Minute + 5*time.Second), "<nil>"},
		"no unit":                        {"30", time.Time{}, `expiry "30": "30" has no known unit; use S, M, H, d, w, m or y`},
		"a unit that nobody knows":       {"3x", time.Time{}, `expiry "3x": "3x" has no known unit; use S, M, H, d, w, m or y`},
		"only a unit":                    {"d", time.Time{}, `expiry "d": "d" is not a number with a unit, such as 3d`},
		"into the past":                  {"-1d", time.Time{}, `expiry "-1d": "-1d" is not a number with a unit, such as 3d`},
		"a blank before the unit":        {"3 d", time.Time{}, `expiry "3 d": "3" is not a number with a unit, such as 3d`},
		"later than JSON can say":        {"9000y", time.Time{}, `expiry "9000y" is after the year 9999: leave it out to keep for ever`},
		"a letter of more than one byte": {"3é", time.Time{}, `expiry "3é": "3é" is not a number with a unit, such as 3d`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseExpiry(tc.value, now)
			if !got.Equal(tc.want) {
				t.Errorf("ParseExpiry(%q) = %s; want %s", tc.value, got, tc.want)
			}
			wantError(t, tc.value, err, tc.wantErr)
		})
	}
}
