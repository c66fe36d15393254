package linear

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"muster/test/lab"
)

// register is a field of an object that nothing but the clients changes, so that its
// object's ETag stands for its value.
type register struct{ path, field string }

func (r register) value(answer lab.Answer) string {
	var object map[string]json.RawMessage
	var value string
	if json.Unmarshal(answer.Metadata, &object) != nil || json.Unmarshal(object[r.field], &value) != nil {
		return "not a " + r.field + ": " + string(answer.Metadata)
	}
	return value
}

// start is what every register holds at first.
const start = "start"

// registers makes new ones: names of certificates and descriptions of members, which
// any member changes, and descriptions of profiles, whose changes their host makes.
func registers(t *testing.T, m *lab.Member, round int64) []register {
	t.Helper()
	var made []register
	do := func(method, path string, body any) {
		t.Helper()
		if _, err := m.Do(t.Context(), method, path, body); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		der := certificate(t)
		do(http.MethodPost, "/1.0/certificates", map[string]any{"name": start, "type": "client", "certificate": base64.StdEncoding.EncodeToString(der)})
		sum := sha256.Sum256(der)
		made = append(made, register{"/1.0/certificates/" + hex.EncodeToString(sum[:]), "name"})
	}
	for i := range 2 {
		name := fmt.Sprintf("p%d-%d", round, i)
		do(http.MethodPost, "/1.0/profiles", map[string]any{"name": name, "description": start})
		made = append(made, register{"/1.0/profiles/" + name, "description"})
	}
	for i := range 3 {
		path := fmt.Sprintf("/1.0/cluster/members/m%d", i+1)
		do(http.MethodPatch, path, map[string]any{"description": start})
		made = append(made, register{path, "description"})
	}
	return made
}

func certificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "register"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// The kinds of operations.
const (
	read  = "read"
	write = "write"
	swap  = "swap"
)

// input is what was asked: a swap sets to if the register holds from.
type input struct {
	register       int
	kind, from, to string
}

// output is what was answered.
type output struct {
	// value is what a read saw.
	value string
	// happened says that the change was made; a swap that was not made is one whose
	// ETag was old.
	happened bool
	// unknown says that nobody knows whether the change was made.
	unknown bool
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, operation := range history {
			r := operation.Input.(input).register
			by[r] = append(by[r], operation)
		}
		var parts [][]porcupine.Operation
		for _, part := range by {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return start },
	Step: func(state, in, out any) (bool, any) {
		holds, asked, answered := state.(string), in.(input), out.(output)
		if asked.kind == read {
			return answered.value == holds, holds
		}
		fits := asked.kind == write || asked.from == holds
		switch {
		case answered.unknown && !fits, !answered.unknown && !answered.happened && !fits:
			return true, holds
		case answered.unknown || answered.happened:
			// What never happened is as if it did after all else.
			return fits, asked.to
		}
		return false, holds // refused, though the ETag was the newest
	},
	DescribeOperation: func(in, out any) string {
		asked, answered := in.(input), out.(output)
		switch {
		case asked.kind == read:
			return "read " + answered.value
		case answered.unknown:
			return fmt.Sprintf("%s %s to %s: unknown", asked.kind, asked.from, asked.to)
		case answered.happened:
			return fmt.Sprintf("%s %s to %s", asked.kind, asked.from, asked.to)
		}
		return fmt.Sprintf("%s %s to %s: stale", asked.kind, asked.from, asked.to)
	},
}

// linearizable asks porcupine, with what nobody knows the outcome of made certain as
// far as others tell: else each of them may be anywhere until the end, and the number
// of orders to try doubles with each.
func linearizable(history []porcupine.Operation) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	type place struct {
		register int
		value    string
	}
	seen := map[place]int64{} // when a value had been seen for sure
	see := func(register int, value string, at int64) {
		if first, known := seen[place{register, value}]; !known || at < first {
			seen[place{register, value}] = at
		}
	}
	for _, operation := range history {
		switch asked := operation.Input.(input); asked.kind {
		case read:
			see(asked.register, operation.Output.(output).value, operation.Return)
		case swap:
			see(asked.register, asked.from, operation.Call) // it had looked before
		}
	}
	var certain, all []porcupine.Operation
	for _, operation := range history {
		asked := operation.Input.(input)
		if operation.Output.(output).unknown {
			at, happened := seen[place{asked.register, asked.to}]
			if !happened {
				// Without it the history may be explained; if so, with it too.
				all = append(all, operation)
				continue
			}
			operation.Output, operation.Return = output{happened: true}, at
		}
		certain, all = append(certain, operation), append(all, operation)
	}
	if result := porcupine.CheckOperationsTimeout(model, certain, checkSpan); result == porcupine.Ok {
		return result, porcupine.LinearizationInfo{}
	}
	return porcupine.CheckOperationsVerbose(model, all, checkSpan)
}

// The model itself: what must be found is found.
func TestModel(t *testing.T) {
	change := func(kind, from, to string, out output, call, end int64) porcupine.Operation {
		return porcupine.Operation{Input: input{kind: kind, from: from, to: to}, Output: out, Call: call, Return: end}
	}
	see := func(value string, call, end int64) porcupine.Operation {
		return porcupine.Operation{Input: input{kind: read}, Output: output{value: value}, Call: call, Return: end}
	}
	made, stale, lost := output{happened: true}, output{}, output{unknown: true}
	for name, tc := range map[string]struct {
		history []porcupine.Operation
		want    bool
	}{
		"a write is read":                      {[]porcupine.Operation{change(write, "", "a", made, 1, 2), see("a", 3, 4)}, true},
		"an acknowledged write is lost":        {[]porcupine.Operation{change(write, "", "a", made, 1, 2), see(start, 3, 4)}, false},
		"an unknown write happened":            {[]porcupine.Operation{change(write, "", "a", lost, 1, unknown), see("a", 3, 4)}, true},
		"an unknown write happened late":       {[]porcupine.Operation{change(write, "", "a", lost, 1, unknown), see(start, 3, 4), see("a", 5, 6)}, true},
		"an unknown write is taken back":       {[]porcupine.Operation{change(write, "", "a", lost, 1, unknown), see("a", 3, 4), see(start, 5, 6)}, false},
		"two swaps of one value":               {[]porcupine.Operation{change(swap, start, "a", made, 1, 4), change(swap, start, "b", made, 2, 3)}, false},
		"a swap loses against another":         {[]porcupine.Operation{change(swap, start, "a", made, 1, 4), change(swap, start, "b", stale, 2, 3)}, true},
		"a swap of what is there is refused":   {[]porcupine.Operation{change(swap, start, "a", stale, 1, 2), see(start, 3, 4)}, false},
		"an unknown write makes another stale": {[]porcupine.Operation{change(write, "", "a", lost, 1, unknown), change(swap, start, "b", stale, 2, 3), change(write, "", "c", made, 4, 5), see("c", 6, 7)}, true},
		"an unknown swap did not fit":          {[]porcupine.Operation{change(write, "", "b", made, 1, 2), change(swap, start, "a", lost, 3, unknown), see("b", 5, 6)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := linearizable(tc.history); (got == porcupine.Ok) != tc.want {
				t.Errorf("linearizable: %v; want %v", got, tc.want)
			}
		})
	}
}
