package state

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// units are the suffixes of sizes: decimal ones by SI, binary ones by IEC 80000-13.
var units = map[string]int64{
	"": 1, "B": 1,
	"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15, "EB": 1e18,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50, "EiB": 1 << 60,
}

// ParseSize reads a size such as "512MiB", "10GB" or plain bytes, and returns
// bytes. A blank between number and unit is allowed.
func ParseSize(value string) (int64, error) {
	unit := strings.TrimLeft(value, "0123456789")
	digits := value[:len(value)-len(unit)]
	if digits == "" || strings.HasPrefix(unit, ".") {
		return 0, Errorf(ErrInvalid, "size %q: want a whole number with a unit, such as 512MiB or 10GB", value)
	}
	factor, known := units[strings.TrimPrefix(unit, " ")]
	if !known || unit == " " {
		return 0, Errorf(ErrInvalid, "size %q: unknown unit %q; use B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB or EiB",
			value, strings.TrimSpace(unit))
	}
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || number > math.MaxInt64/factor {
		return 0, Errorf(ErrInvalid, "size %q is larger than can be counted", value)
	}
	return number * factor, nil
}

// ParseBool reads the truth values that users write. The empty string is false.
func ParseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "1", "yes", "on":
		return true, nil
	case "false", "0", "no", "off", "":
		return false, nil
	}
	return false, Errorf(ErrInvalid, "%q is not a truth value: want true or false", value)
}

// ParseCPULimit reads limits.cpu: a number of processors, or a set of them such
// as "0-2,4".
func ParseCPULimit(value string) (count int, set string, err error) {
	if !strings.ContainsAny(value, "-,") {
		count, err := strconv.Atoi(value)
		if err != nil || count < 1 || count > 1<<16 {
			return 0, "", Errorf(ErrInvalid, "limits.cpu %q: want a number of processors (2) or a set of them (0-1,3)", value)
		}
		return count, "", nil
	}
	if _, err := ParseCPUSet(value); err != nil {
		return 0, "", err
	}
	return 0, value, nil
}

// ParseCPUSet reads a set of processors such as "0-2,4", and returns their numbers, sorted.
func ParseCPUSet(value string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(value, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, errFrom := strconv.ParseUint(first, 10, 16)
		to, errTo := strconv.ParseUint(last, 10, 16)
		if errFrom != nil || errTo != nil || to < from {
			return nil, Errorf(ErrInvalid, "limits.cpu %q: %q is not a processor, such as 3, or a range that ends no lower than it begins, such as 0-1", value, part)
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, int(cpu))
		}
	}
	slices.Sort(cpus)
	return slices.Compact(cpus), nil
}

// FormatCPUSet writes processors in ascending order as ParseCPUSet reads them.
func FormatCPUSet(cpus []int) string {
	var parts []string
	for i := 0; i < len(cpus); {
		last := i
		for last+1 < len(cpus) && cpus[last+1] == cpus[last]+1 {
			last++
		}
		part := strconv.Itoa(cpus[i])
		if last > i {
			part += "-" + strconv.Itoa(cpus[last])
		}
		parts = append(parts, part)
		i = last + 1
	}
	return strings.Join(parts, ",")
}

// CPUAllowance is limits.cpu.allowance: a share of the processor under load, or
// a hard quota of each period.
type CPUAllowance struct {
	// Percent is 1 to 100, or zero when a quota is set.
	Percent       int
	Quota, Period time.Duration
}

// ParseCPUAllowance reads "50%" or "25ms/100ms".
func ParseCPUAllowance(value string) (CPUAllowance, error) {
	wrong := Errorf(ErrInvalid, "limits.cpu.allowance %q: want a share (50%%) or time of each period (25ms/100ms)", value)
	if percent, ok := strings.CutSuffix(value, "%"); ok {
		share, err := strconv.Atoi(percent)
		if err != nil || share < 1 || share > 100 {
			return CPUAllowance{}, wrong
		}
		return CPUAllowance{Percent: share}, nil
	}
	quotaText, periodText, _ := strings.Cut(value, "/")
	quota, errQuota := time.ParseDuration(quotaText)
	period, errPeriod := time.ParseDuration(periodText)
	// The kernel takes periods of 1 ms to 1 s (Documentation/scheduler/sched-bwc).
	if errQuota != nil || errPeriod != nil || quota < time.Millisecond || period < time.Millisecond || period > time.Second {
		return CPUAllowance{}, wrong
	}
	return CPUAllowance{Quota: quota, Period: period}, nil
}

// ParseExpiry adds an age such as "1M 2d 3H" to now: S seconds, M minutes, H
// hours, d days, w weeks, m months, y years. The empty string is the zero time. A
// result after the year 9999 is refused: JSON has no word for it.
func ParseExpiry(value string, now time.Time) (time.Time, error) {
	fields := strings.Fields(value)
	if len(fields) == 0 {
		return time.Time{}, nil
	}
	at := now
	for _, field := range fields {
		count, err := strconv.Atoi(field[:len(field)-1])
		if err != nil || count < 0 || count > 1e6 {
			return time.Time{}, Errorf(ErrInvalid, "expiry %q: %q is not a number with a unit, such as 3d", value, field)
		}
		switch field[len(field)-1] {
		case 'S':
			at = at.Add(time.Duration(count) * time.Second)
		case 'M':
			at = at.Add(time.Duration(count) * time.Minute)
		case 'H':
			at = at.Add(time.Duration(count) * time.Hour)
		case 'd':
			at = at.AddDate(0, 0, count)
		case 'w':
			at = at.AddDate(0, 0, 7*count)
		case 'm':
			at = at.AddDate(0, count, 0)
		case 'y':
			at = at.AddDate(count, 0, 0)
		default:
			return time.Time{}, Errorf(ErrInvalid, "expiry %q: %q has no known unit; use S, M, H, d, w, m or y", value, field)
		}
		if at.Year() > 9999 {
			return time.Time{}, Errorf(ErrInvalid, "expiry %q is after the year 9999: leave it out to keep for ever", value)
		}
	}
	return at, nil
}
