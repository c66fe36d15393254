package e2e

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"muster/test/lab"
)

// A push makes the whole file or nothing: an owner that the instance does not have, or an
// upload that is cut, leaves what was there, whether the instance runs or not, with every
// driver.
func TestPushIsWholeOrNothing(t *testing.T) {
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	for _, driver := range []string{"overlay", "dir", "btrfs"} {
		create := []string{"storage", "create", "push-" + driver, driver}
		if driver == "btrfs" {
			create = append(create, "size=512MiB")
		}
		m.Muster(create...)
		m.Muster("init", "busybox", driver, "--storage", "push-"+driver)
		for _, running := range []bool{false, true} {
			if running {
				m.Muster("start", driver)
			}
			t.Run(driver+map[bool]string{true: ", running", false: ", stopped"}[running], func(t *testing.T) { pushes(t, m, driver) })
		}
		m.Muster("delete", "--force", driver)
		m.Muster("storage", "delete", "push-"+driver)
	}
}

func pushes(t *testing.T, m *lab.Member, instance string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	url := func(path string) string { return "/1.0/instances/" + instance + "/files?path=" + path }
	push := func(path string, body io.Reader, headers ...string) lab.Answer {
		t.Helper()
		header := http.Header{"X-Lxd-Type": {"file"}, "Content-Type": {"application/octet-stream"}}
		for i := 0; i < len(headers); i += 2 {
			header.Set(headers[i], headers[i+1])
		}
		answer, err := m.Request(ctx, http.MethodPost, url(path), body, header)
		if err != nil && answer.Code == 0 {
			answer.Error = err.Error() // the connection went with the upload
		}
		return answer
	}
	look := func(path string) (lab.Answer, string) {
		t.Helper()
		answer, err := m.Request(ctx, http.MethodGet, url(path), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer, string(answer.Metadata)
	}
	entries := func() string { _, names := look("/root"); return names }
	push("/root", nil, "X-Lxd-Type", "directory")
	empty := entries()

	for kind, body := range map[string]string{"file": "x", "directory": ""} {
		answer := push("/root/strange", strings.NewReader(body), "X-Lxd-Type", kind, "X-Lxd-Uid", "1700000000", "X-Lxd-Gid", "0")
		if answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, "owner 1700000000:0") {
			t.Errorf("a %s of an owner that is not there: %d %q; want 400 that names the owner", kind, answer.Code, answer.Error)
		}
	}
	if got := entries(); got != empty {
		t.Errorf("afterwards /root has %s; want %s", got, empty)
	}
	if answer := push("/root/f", strings.NewReader("old"), "X-Lxd-Uid", "7", "X-Lxd-Gid", "8", "X-Lxd-Mode", "4751"); answer.Code != 200 {
		t.Fatalf("push: %d %s", answer.Code, answer.Error)
	}
	same := func(what, want string) {
		t.Helper()
		answer, content := look("/root/f")
		h := answer.Header
		if content != want || h.Get("X-Lxd-Uid") != "7" || h.Get("X-Lxd-Gid") != "8" || h.Get("X-Lxd-Mode") != "4751" {
			t.Errorf("%s: %q of %s:%s, mode %s; want %q of 7:8, mode 4751", what, content, h.Get("X-Lxd-Uid"), h.Get("X-Lxd-Gid"), h.Get("X-Lxd-Mode"), want)
		}
	}
	push("/root/f", strings.NewReader("x"), "X-Lxd-Uid", "1700000000")
	same("after a push of an owner that is not there", "old")
	cut := io.MultiReader(strings.NewReader(strings.Repeat("new", 100_000)), iotest.ErrReader(errors.New("cut")))
	if answer := push("/root/f", cut); answer.Code == 200 {
		t.Error("a cut upload is answered with 200")
	}
	// The server goes on after the client has gone: it has cleaned up when the file server of
	// the instance has.
	clean := func() bool {
		names := entries()
		return !strings.Contains(names, "muster-push")
	}
	for deadline := time.Now().Add(time.Minute); !clean() && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
	}
	if !clean() {
		t.Errorf("/root has %s; want nothing of the upload that was cut", entries())
	}
	same("after an upload that was cut", "old")
	if answer := push("/root/f", strings.NewReader("new")); answer.Code != 200 {
		t.Errorf("push over it: %d %s", answer.Code, answer.Error)
	}
	same("after a push over it", "new")
	push("/root/link", strings.NewReader("../root/f"), "X-Lxd-Type", "symlink")
	if answer := push("/root/link", strings.NewReader("through")); answer.Code != 200 {
		t.Errorf("push through a link: %d %s", answer.Code, answer.Error)
	}
	same("after a push through a link", "through")
	if answer := push("/root/f", strings.NewReader("+"), "X-Lxd-Write", "append"); answer.Code != 200 {
		t.Errorf("append: %d %s", answer.Code, answer.Error)
	}
	if _, content := look("/root/f"); content != "through+" {
		t.Errorf("after an append: %q; want through+", content)
	}
	for _, name := range []string{"f", "link"} {
		if _, err := m.Request(ctx, http.MethodDelete, url("/root/"+name), nil, nil); err != nil {
			t.Error(err)
		}
	}
}
