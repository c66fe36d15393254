package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster/rpc/rest/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNewRefusesWhatCannotBeReached(t *testing.T) {
	for name, cfg := range map[string]Config{
		"nothing":             {},
		"plain http":          {URL: "http://host:8443"},
		"no host":             {URL: "https://"},
		"not a URL":           {URL: "::"},
		"a host without more": {URL: "host:8443"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestURLs(t *testing.T) {
	c, err := New(Config{URL: "https://host:8443", Project: "web site", Target: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		path  string
		query url.Values
		want  string
	}{
		"project and target go along": {at("instances"), nil, "https://host:8443/1.0/instances?project=web+site&target=m1"},
		"names are escaped":           {at("images", "aliases", "a/b c?"), nil, "https://host:8443/1.0/images/aliases/a%2Fb%20c%3F?project=web+site&target=m1"},
		"all projects name none":      {at("instances"), url.Values{"all-projects": {"true"}}, "https://host:8443/1.0/instances?all-projects=true&target=m1"},
		"a call's own project wins":   {at("x"), url.Values{"project": {"other"}}, "https://host:8443/1.0/x?project=other&target=m1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.url(tc.path, tc.query); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
	if got := c.WithProject("").WithTarget("").url(at("x"), nil); got != "https://host:8443/1.0/x" {
		t.Errorf("without project and target: %s", got)
	}
	if c.Project() != "web site" {
		t.Error("WithProject changed its origin")
	}
}

// An empty name must never turn "delete this" into "delete the collection".
func TestPathsThatMeanSomethingElse(t *testing.T) {
	c, err := New(Config{Socket: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", ".."} {
		if _, err := c.DeleteInstance(t.Context(), name); err == nil || strings.Contains(err.Error(), "/nowhere") {
			t.Errorf("name %q: %v, want a refusal before anything is sent", name, err)
		}
	}
	_, err = c.DeleteInstance(t.Context(), "web")
	if _, ok := errors.AsType[*ConnectionError](err); !ok || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("no server: %v, want a ConnectionError that names the socket", err)
	}
}

func TestRefusal(t *testing.T) {
	for name, tc := range map[string]struct{ body, want string }{
		"the server's sentence":        {`{"type":"error","error":"no such thing","error_code":404}`, "no such thing"},
		"a proxy's page":               {"<html><body>Bad gateway</body></html>", "the server answered 404 Not Found"},
		"another program's words":      {"page not found\n", "page not found"},
		"nothing at all":               {"", "the server answered 404 Not Found"},
		"an envelope without a reason": {`{"type":"error"}`, `{"type":"error"}`},
	} {
		t.Run(name, func(t *testing.T) {
			err := refusal(&http.Response{
				StatusCode: http.StatusNotFound, Status: "404 Not Found", Body: io.NopCloser(strings.NewReader(tc.body)),
			})
			if err.Error() != tc.want || StatusCode(err) != 404 || !IsNotFound(fmt.Errorf("wrapped: %w", err)) {
				t.Errorf("got %q with status %d, want %q with 404", err, StatusCode(err), tc.want)
			}
		})
	}
}

func TestProgressOf(t *testing.T) {
	for name, tc := range map[string]struct {
		metadata string
		want     Progress
		ok       bool
	}{
		"nothing":     {`{"return": 0}`, Progress{Percent: -1}, false},
		"only a text": {`{"download_progress": "2%"}`, Progress{Text: "2%", Percent: -1}, true},
		"text and percent, as seen on the wire": {
			`{"create_instance_from_image_unpack_progress": "Unpack: 7% (656.04MB/s)", "progress": {"percent": "7", "speed": "656", "stage": "x"}}`,
			Progress{Text: "Unpack: 7% (656.04MB/s)", Percent: 7},
			true,
		},
		"a percent as a number":  {`{"progress": {"percent": 42}}`, Progress{Percent: 42}, true},
		"a percent out of range": {`{"progress": {"percent": "142"}}`, Progress{Percent: -1}, false},
		"several texts, always the same one": {
			`{"a_progress": "a", "c_progress": "c", "b_progress": "b"}`, Progress{Text: "c", Percent: -1}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var op api.Operation
			if err := json.Unmarshal([]byte(tc.metadata), &op.Metadata); err != nil {
				t.Fatal(err)
			}
			got, ok := ProgressOf(op)
			if ok != tc.ok {
				t.Errorf("says something: %v, want %v", ok, tc.ok)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMultipartBody(t *testing.T) {
	header := http.Header{}
	part := func(name, content string) ImagePart {
		return ImagePart{Name: "/some/dir/" + name, Content: strings.NewReader(content), Size: int64(len(content))}
	}
	body, length, err := multipartBody(header, part("meta.tar", "metadata!"), part("root.squashfs", "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(text)) != length {
		t.Errorf("announced %d bytes, sent %d", length, len(text))
	}
	_, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	form, err := multipart.NewReader(strings.NewReader(string(text)), params["boundary"]).ReadForm(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for field, files := range form.File {
		file, err := files[0].Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(file)
		if err != nil {
			t.Fatal(err)
		}
		got[field] = files[0].Filename + ": " + string(content)
	}
	want := map[string]string{"metadata": "meta.tar: metadata!", "rootfs": "root.squashfs: rootfs"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAttachmentName(t *testing.T) {
	for header, want := range map[string]string{
		`attachment;filename=image.tar.gz`:        "image.tar.gz",
		`attachment; filename="../../etc/passwd"`: "passwd",
		`attachment; filename=".."`:               "",
		`attachment`:                              "",
		``:                                        "",
	} {
		if got := attachmentName(http.Header{"Content-Disposition": {header}}); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}
