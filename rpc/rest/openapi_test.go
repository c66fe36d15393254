package rest

import (
	stdcmp "cmp"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3gen"
	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"muster/state/store"
)

var update = flag.Bool("update", false, "rewrite docs/openapi.yaml")

const document = "../../docs/openapi.yaml"

// everything is a Config that serves every resource, to look at the table only.
func everything() Config {
	return Config{
		Log: slog.New(slog.DiscardHandler), View: func() *store.View { return nil },
		Settings: struct{ SettingStore }{}, Events: struct{ EventSource }{}, Operations: struct{ OperationStore }{},
		Certificates: struct{ CertificateStore }{}, Profiles: struct{ ProfileStore }{}, Projects: struct{ ProjectStore }{},
		Instances: struct{ InstanceStore }{}, Snapshots: struct{ SnapshotStore }{}, Execs: struct{ ExecStore }{}, Files: struct{ FileStore }{},
		Images: struct{ ImageStore }{}, Transfers: struct{ TransferStore }{}, Networks: struct{ NetworkStore }{}, Pools: struct{ PoolStore }{}, Members: struct{ MemberStore }{}, Groups: struct{ GroupStore }{},
	}
}

func TestOpenAPIShowsEveryResource(t *testing.T) {
	cfg := reflect.ValueOf(everything())
	for i := range cfg.NumField() {
		field := cfg.Type().Field(i)
		if strings.HasSuffix(field.Type.Name(), "Store") && cfg.Field(i).IsNil() {
			t.Errorf("everything() leaves Config.%s out, so docs/openapi.yaml does too", field.Name)
		}
	}
}

func TestOpenAPIIsCurrent(t *testing.T) {
	encoded, err := describeAPI(t).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(encoded) // resolves references
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatalf("the document is not valid OpenAPI: %v", err)
	}
	body, err := yaml.JSONToYAML(encoded)
	if err != nil {
		t.Fatal(err)
	}
	got := "# Made from the route table by `make generate`; do not edit.\n" + string(body)
	if *update {
		if err := os.WriteFile(document, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what the route table says; run `make generate` (-file +table):\n%s", document, diff)
	}
	if _, err := openapi3.NewLoader().LoadFromFile(document); err != nil {
		t.Errorf("the file cannot be loaded: %v", err)
	}
}

// What linters (Redocly's and Spectral's recommended rules) call an error, and the validator
// above does not see.
func TestOpenAPIPassesLinters(t *testing.T) {
	doc := describeAPI(t)
	if metadata := doc.Components.Schemas["Error"].Value.Properties["metadata"].Value; metadata.Type == nil {
		t.Error("Error.metadata is nullable and has no type")
	}
	if len(doc.Security) == 0 || doc.Components.SecuritySchemes[certificateScheme] == nil {
		t.Error("nothing says how callers prove who they are")
	}
	if len(doc.Servers) == 0 {
		t.Error("no server is named")
	}
	ids := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if other, taken := ids[op.OperationID]; taken || op.OperationID == "" {
				t.Errorf("%s %s has the operation id %q of %s", method, path, op.OperationID, other)
			}
			ids[op.OperationID] = method + " " + path
			if len(op.Tags) == 0 || doc.Tags.Get(op.Tags[0]) == nil {
				t.Errorf("%s %s has the tags %q, which are not described", method, path, op.Tags)
			}
		}
	}
}

// A summary that ends in a full stop, or a pattern twice, is a slip.
func TestRoutesAreWellFormed(t *testing.T) {
	if _, err := New(everything()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range table(everything()) {
		if err := r.check(); err != nil {
			t.Error(err)
		}
		if strings.HasSuffix(r.summary, ".") {
			t.Errorf("%s: summary %q ends in a full stop", r.pattern, r.summary)
		}
		if r.async && r.returns == nil {
			t.Errorf("%s: is async and returns nothing; want api.Operation{}", r.pattern)
		}
		if seen[r.pattern] {
			t.Errorf("%s is in the table twice", r.pattern)
		}
		seen[r.pattern] = true
	}
}

// describeAPI turns the route table into an OpenAPI document.
func describeAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc := &openapi3.T{
		OpenAPI: "3.0.3",
		Info: &openapi3.Info{
			Title: "muster", Version: "1.0", License: &openapi3.License{Name: "Apache-2.0", URL: "https://www.apache.org/licenses/LICENSE-2.0"},
			Description: "The LXD REST API as muster serves it. Every path under `/1.0/instances` is served under " +
				"`/1.0/containers` and `/1.0/virtual-machines` too, and lists echo the name that was used. " +
				"`docs/compatibility.md` says where documents and clients disagree and what was chosen.",
		},
		Paths: openapi3.NewPaths(),
		Components: &openapi3.Components{
			Schemas: openapi3.Schemas{"Error": envelopeSchema("error", nil)},
			// OpenAPI 3.0 has no type for certificates; "mutual" is what tools take for it.
			SecuritySchemes: openapi3.SecuritySchemes{certificateScheme: &openapi3.SecuritySchemeRef{Value: &openapi3.SecurityScheme{
				Type: "http", Scheme: "mutual",
				Description: "A TLS client certificate that the trust store holds. The local socket, `/var/lib/muster/unix.socket`, needs none.",
			}}},
		},
		Security: openapi3.SecurityRequirements{{certificateScheme: []string{}}},
		Servers: openapi3.Servers{{
			URL:         "https://{host}:8443",
			Variables:   map[string]*openapi3.ServerVariable{"host": {Default: "localhost", Description: "Any member of the cluster."}},
			Description: "A member; core.https_address says where it listens.",
		}},
	}
	types := openapi3gen.NewGenerator(
		openapi3gen.CreateComponentSchemas(openapi3gen.ExportComponentSchemasOptions{ExportComponentSchemas: true, ExportTopLevelSchema: true}),
		openapi3gen.SchemaCustomizer(plainSchema),
	)
	schemaOf := func(value any) *openapi3.SchemaRef {
		if value == nil {
			return openapi3.NewSchemaRef("", openapi3.NewObjectSchema())
		}
		ref, err := types.NewSchemaRefForValue(value, doc.Components.Schemas)
		if err != nil {
			t.Fatalf("schema of %T: %v", value, err)
		}
		return ref
	}
	for _, r := range sortedRoutes() {
		path := strings.TrimSuffix(strings.ReplaceAll(r.path(), "...}", "}"), "{$}")
		item := doc.Paths.Value(path)
		if item == nil {
			item = &openapi3.PathItem{}
			doc.Paths.Set(path, item)
		}
		item.SetOperation(r.method(), r.describe(schemaOf))
		if tag := r.tag(); tag != "" && doc.Tags.Get(tag) == nil {
			doc.Tags = append(doc.Tags, &openapi3.Tag{Name: tag, Description: "What is under `/1.0/" + tag + "`."})
		}
	}
	return doc
}

func sortedRoutes() []route {
	routes := table(everything())
	slices.SortStableFunc(routes, func(a, b route) int { return strings.Compare(a.path(), b.path()) })
	return routes
}

var variable = regexp.MustCompile(`\{([a-z]+)(\.\.\.)?\}`)

// certificateScheme is how callers prove who they are.
const certificateScheme = "clientCertificate"

// tag groups a route with those beside it: by what comes after /1.0/.
func (r route) tag() string {
	if parts := strings.Split(r.path(), "/"); len(parts) > 2 {
		return parts[2]
	}
	return "server"
}

// id is a name for the route that generators of clients can use.
func (r route) id() string {
	words := strings.FieldsFunc(strings.TrimPrefix(r.path(), "/1.0"), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
	id := strings.ToLower(r.method())
	if r.path() == "/{$}" {
		return id + "Versions"
	}
	for _, word := range words {
		id += strings.ToUpper(word[:1]) + word[1:]
	}
	if len(words) == 0 {
		id += "Server"
	}
	return id
}

// describe is the route as an OpenAPI operation.
func (r route) describe(schemaOf func(any) *openapi3.SchemaRef) *openapi3.Operation {
	op := openapi3.NewOperation()
	op.Summary, op.Description = r.summary, r.description
	op.Extensions = map[string]any{"x-access": r.access.String()}
	if len(r.announces) > 0 {
		op.Extensions["x-api-extensions"] = r.announces
	}
	if tag := r.tag(); tag != "" {
		op.Tags = []string{tag}
	}
	op.OperationID = r.id()
	if r.access == public {
		// Some callers see or do more with a certificate.
		op.Security = &openapi3.SecurityRequirements{{}, {certificateScheme: []string{}}}
	}
	for _, name := range variable.FindAllStringSubmatch(r.path(), -1) {
		op.AddParameter(openapi3.NewPathParameter(name[1]).WithSchema(openapi3.NewStringSchema()))
	}
	query := slices.Clone(r.query)
	if r.method() == http.MethodGet && !strings.HasPrefix(r.path(), "/internal/") {
		query = append(query, staleParameter)
	}
	for _, p := range query {
		schema := openapi3.NewSchema()
		schema.Type = &openapi3.Types{p.kind}
		op.AddParameter(openapi3.NewQueryParameter(p.name).WithDescription(p.text).WithSchema(schema))
	}
	if r.tagged && r.method() != http.MethodGet {
		op.AddParameter(openapi3.NewHeaderParameter("If-Match").
			WithDescription("ETag of the object as it was read; 412 when it changed since.").WithSchema(openapi3.NewStringSchema()))
	}
	switch r.body.(type) {
	case nil:
	case rawBody:
		op.RequestBody = &openapi3.RequestBodyRef{Value: openapi3.NewRequestBody().WithContent(
			openapi3.NewContentWithSchema(openapi3.NewStringSchema().WithFormat("binary"), []string{"application/octet-stream"}))}
	default:
		op.RequestBody = &openapi3.RequestBodyRef{Value: openapi3.NewRequestBody().WithRequired(true).WithJSONSchemaRef(schemaOf(r.body))}
	}
	op.Responses = r.responses(schemaOf)
	return op
}

func (r route) responses(schemaOf func(any) *openapi3.SchemaRef) *openapi3.Responses {
	responses := openapi3.NewResponsesWithCapacity(2)
	add := func(status int, response *openapi3.Response) {
		responses.Set(strconv.Itoa(status), &openapi3.ResponseRef{Value: response})
	}
	switch status := stdcmp.Or(r.status, http.StatusOK); {
	case status == http.StatusSwitchingProtocols:
		add(status, openapi3.NewResponse().WithDescription("A websocket follows."))
	case r.async:
		answer := openapi3.NewResponse().WithDescription("The background operation").
			WithJSONSchemaRef(envelopeSchema("async", schemaOf(r.returns)))
		answer.Headers = header("Location", "URL of the operation")
		add(http.StatusAccepted, answer)
	case isRaw(r.returns):
		add(status, openapi3.NewResponse().WithDescription("Success").WithContent(
			openapi3.NewContentWithSchema(openapi3.NewStringSchema().WithFormat("binary"), []string{"application/octet-stream"})))
	default:
		answer := openapi3.NewResponse().WithDescription("Success").WithJSONSchemaRef(envelopeSchema("sync", schemaOf(r.returns)))
		if status == http.StatusCreated {
			answer.Headers = header("Location", "URL of the new object")
		}
		if r.tagged && r.method() == http.MethodGet {
			answer.Headers = header("ETag", "for If-Match")
		}
		add(status, answer)
	}
	failure := openapi3.NewResponse().WithDescription("What is wrong, in a sentence; error_code repeats the HTTP status.").
		WithJSONSchemaRef(openapi3.NewSchemaRef("#/components/schemas/Error", nil))
	responses.Set("4XX", &openapi3.ResponseRef{Value: failure})
	responses.Set("default", &openapi3.ResponseRef{Value: failure})
	return responses
}

func isRaw(value any) bool { _, raw := value.(rawBody); return raw }

func header(name, text string) openapi3.Headers {
	return openapi3.Headers{name: &openapi3.HeaderRef{Value: &openapi3.Header{Parameter: openapi3.Parameter{
		Description: text, Schema: openapi3.NewSchemaRef("", openapi3.NewStringSchema()),
	}}}}
}

// envelopeSchema is the frame of every JSON answer with the given metadata.
func envelopeSchema(kind string, metadata *openapi3.SchemaRef) *openapi3.SchemaRef {
	schema := openapi3.NewObjectSchema()
	schema.Properties = openapi3.Schemas{
		"type":        openapi3.NewSchemaRef("", openapi3.NewStringSchema().WithEnum(kind)),
		"status":      openapi3.NewSchemaRef("", openapi3.NewStringSchema()),
		"status_code": openapi3.NewSchemaRef("", openapi3.NewIntegerSchema()),
		"operation":   openapi3.NewSchemaRef("", openapi3.NewStringSchema()),
		"error_code":  openapi3.NewSchemaRef("", openapi3.NewIntegerSchema()),
		"error":       openapi3.NewSchemaRef("", openapi3.NewStringSchema()),
		"metadata":    stdcmp.Or(metadata, openapi3.NewSchemaRef("", openapi3.NewObjectSchema().WithNullable())),
	}
	schema.Required = []string{"type", "status", "status_code", "operation", "error_code", "error", "metadata"}
	return openapi3.NewSchemaRef("", schema)
}

// plainSchema drops what the generator adds for Go's sake.
func plainSchema(_ string, t reflect.Type, _ reflect.StructTag, schema *openapi3.Schema) error {
	if t.Kind() == reflect.Uint64 || t.Kind() == reflect.Int64 || t.Kind() == reflect.Int {
		schema.Min, schema.Max = nil, nil
	}
	return nil
}
