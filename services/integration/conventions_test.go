package integration

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// root of the repository, from this package.
const root = "../.."

// source is one Go file of the repository.
type source struct {
	dir  string // slash-separated, below the root
	name string
	file *ast.File
}

func (s source) path() string { return path.Join(s.dir, s.name) }

// conventions are the rules that every Go file of the repository keeps. Each gives one line for each breach.
var conventions = map[string]func([]source) []string{
	"every package has its documentation in exactly one file":    packageDocs,
	"services say what they consume, emit, keep, do on failure":  serviceDocs,
	"names say what is provided":                                 vagueNames,
	"imports point one way":                                      importDirections,
	"nothing happens before main":                                initFunctions,
	"metrics are declared in metrics.go and named after package": metricNames,
}

func TestConventions(t *testing.T) {
	all := parseTree(t)
	if len(all) < 50 {
		t.Fatalf("only %d Go files were found below %s", len(all), root)
	}
	for rule, breaches := range conventions {
		t.Run(rule, func(t *testing.T) {
			for _, b := range breaches(all) {
				t.Error(b)
			}
		})
	}
}

func TestTheRootIsATableOfContents(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"services", "events", "agent", "deploy", "dashboards", "go.mod", "go.sum", "README.md", "LICENSE"}
	ignored, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(ignored)) { // what is built into the root is not of the tree
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "/"); ok {
			allowed = append(allowed, strings.TrimSuffix(name, "/"))
		}
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s does not belong in the root", e.Name())
		}
	}
}

func parseTree(t *testing.T) (all []source) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); file != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(set, file, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		dir, name := path.Split(filepath.ToSlash(below))
		all = append(all, source{path.Clean(dir), name, parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// docs collects the package comments by directory.
func docs(all []source) map[string][]source {
	found := map[string][]source{}
	for _, s := range all {
		if _, ok := found[s.dir]; !ok {
			found[s.dir] = nil // a directory without any is listed too
		}
		if s.file.Doc != nil && strings.TrimSpace(s.file.Doc.Text()) != "" {
			found[s.dir] = append(found[s.dir], s)
		}
	}
	return found
}

func packageDocs(all []source) (breaches []string) {
	for dir, documented := range docs(all) {
		var names []string
		for _, s := range documented {
			names = append(names, s.name)
			if text := s.file.Doc.Text(); !strings.HasPrefix(text, "Package "+s.file.Name.Name+" ") && s.file.Name.Name != "main" {
				breaches = append(breaches, fmt.Sprintf("%s: the comment does not begin with Package %s", s.path(), s.file.Name.Name))
			}
		}
		if len(names) != 1 {
			breaches = append(breaches, fmt.Sprintf("%s: documented in %d files: %s", dir, len(names), strings.Join(names, ", ")))
		}
	}
	slices.Sort(breaches)
	return breaches
}

func serviceDocs(all []source) (breaches []string) {
	documented := docs(all)
	for _, service := range []string{"content", "scheduling", "execution", "credentials"} {
		text := ""
		for _, s := range documented["services/"+service] {
			text += s.file.Doc.Text()
		}
		for _, heading := range []string{"Consumes", "Emits", "Keeps", "On failure"} {
			if !strings.Contains(text, "# "+heading+"\n") {
				breaches = append(breaches, fmt.Sprintf("services/%s: its documentation has no heading %q", service, heading))
			}
		}
	}
	return breaches
}

var vague = []string{"util", "utils", "common", "helper", "helpers", "shared", "types", "models", "pkg", "misc"}

func vagueNames(all []source) (breaches []string) {
	for _, s := range all {
		names := append(strings.Split(s.dir, "/"), s.file.Name.Name)
		names = append(names, strings.Split(strings.TrimSuffix(s.name, ".go"), "_")...)
		for _, name := range names {
			if slices.Contains(vague, name) {
				breaches = append(breaches, fmt.Sprintf("%s: %q says nothing", s.path(), name))
			}
		}
	}
	return slices.Compact(breaches)
}

func importDirections(all []source) (breaches []string) {
	for _, s := range all {
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			if imported == "C" {
				breaches = append(breaches, s.path()+": cgo")
			}
			if own, ok := strings.CutPrefix(imported, "chandler/"); ok && !slices.ContainsFunc(mayImport(s.dir), func(tree string) bool { return own == tree || strings.HasPrefix(own, tree+"/") }) {
				breaches = append(breaches, fmt.Sprintf("%s: imports %s", s.path(), own))
			}
		}
	}
	return breaches
}

// mayImport lists the trees whose packages a directory may import.
func mayImport(dir string) []string {
	parts := strings.Split(dir, "/")
	switch {
	case parts[0] == "events":
		return []string{"events"}
	case dir == "agent/cmd/chandler-agent":
		return []string{"agent", "events", "services/daemon"}
	case parts[0] == "agent":
		return []string{"agent", "events"}
	case parts[0] == "services" && len(parts) > 1 && (parts[1] == "cmd" || parts[1] == "integration"):
		return []string{"agent", "events", "services", "deploy", "dashboards"}
	case parts[0] == "services" && len(parts) > 1:
		return []string{"services/" + parts[1], "services/daemon", "events"}
	}
	return []string{parts[0], "agent", "events", "services"} // tests beside what is deployed
}

func initFunctions(all []source) (breaches []string) {
	for _, s := range all {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				breaches = append(breaches, s.path()+": has an init function")
			}
		}
	}
	return breaches
}

func metricNames(all []source) (breaches []string) {
	for _, s := range all {
		if strings.HasSuffix(s.name, "_test.go") {
			continue
		}
		form := regexp.MustCompile(`^chandler_` + regexp.QuoteMeta(s.file.Name.Name) + `(_[a-z0-9]+)*_?$`)
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if name, ok := metricName(n); ok {
					switch {
					case s.name != "metrics.go":
						breaches = append(breaches, fmt.Sprintf("%s: declares the metric %s…", s.path(), name))
					case !form.MatchString(name):
						breaches = append(breaches, fmt.Sprintf("%s: metric %q does not begin with chandler_%s_", s.path(), name, s.file.Name.Name))
					}
				}
			case *ast.CallExpr:
				if label := boundlessLabel(n); label != "" {
					breaches = append(breaches, fmt.Sprintf("%s: a metric has the label %q, which has a value for each of them", s.path(), label))
				}
			}
			return true
		})
	}
	return breaches
}

// metricName is the name (or the literal that it begins with) in prometheus.…Opts{Name: …}.
func metricName(lit *ast.CompositeLit) (string, bool) {
	t, ok := lit.Type.(*ast.SelectorExpr)
	if pkg, isName := selected(t, ok); !isName || pkg != "prometheus" || !strings.HasSuffix(t.Sel.Name, "Opts") {
		return "", false
	}
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "Name" {
			return leftmost(kv.Value), true
		}
	}
	return "", false
}

func selected(t *ast.SelectorExpr, ok bool) (string, bool) {
	if !ok {
		return "", false
	}
	id, ok := t.X.(*ast.Ident)
	if !ok {
		return "", false
	}
	return id.Name, true
}

// leftmost is the literal at the beginning of "a" + b + c; else the empty string, which no rule allows.
func leftmost(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return leftmost(e.X)
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return text
		}
	}
	return ""
}

// boundlessLabel finds labels with a value for each agent or job in prometheus.New…Vec(…, []string{…}).
func boundlessLabel(call *ast.CallExpr) string {
	t, ok := call.Fun.(*ast.SelectorExpr)
	if pkg, isName := selected(t, ok); !isName || pkg != "prometheus" || !strings.HasSuffix(t.Sel.Name, "Vec") || len(call.Args) != 2 {
		return ""
	}
	labels, ok := call.Args[1].(*ast.CompositeLit)
	if !ok {
		return ""
	}
	for _, e := range labels.Elts {
		if label := leftmost(e); slices.Contains([]string{"agent", "job", "host", "hostname", "user"}, label) {
			return label
		}
	}
	return ""
}

// TestConventionsNoticeBreaches breaks every rule once.
func TestConventionsNoticeBreaches(t *testing.T) {
	parse := func(file, text string) source {
		t.Helper()
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		dir, name := path.Split(file)
		return source{path.Clean(dir), name, parsed}
	}
	for name, c := range map[string]struct {
		rule func([]source) []string
		all  []source
		want []string
	}{
		"no documentation": {packageDocs, []source{parse("events/a/a.go", "package a")}, []string{"events/a: documented in 0 files: "}},
		"two of them": {packageDocs, []source{parse("events/a/a.go", "// Package a is.\npackage a"), parse("events/a/b_test.go", "// Package a is.\npackage a")},
			[]string{"events/a: documented in 2 files: a.go, b_test.go"}},
		"another package's documentation": {packageDocs, []source{parse("events/a/a.go", "// Package b is.\npackage a")}, []string{"events/a/a.go: the comment does not begin with Package a"}},
		"a vague file":                    {vagueNames, []source{parse("events/a/helpers_test.go", "package a")}, []string{`events/a/helpers_test.go: "helpers" says nothing`}},
		"a vague package":                 {vagueNames, []source{parse("agent/common/a.go", "package a")}, []string{`agent/common/a.go: "common" says nothing`}},
		"the contract imports a service":  {importDirections, []source{parse("events/a/a.go", `package a; import "chandler/services/daemon"`)}, []string{"events/a/a.go: imports services/daemon"}},
		"a service imports another":       {importDirections, []source{parse("services/content/a.go", `package a; import ("chandler/services/scheduling"; "chandler/services/daemon"; "chandler/events")`)}, []string{"services/content/a.go: imports services/scheduling"}},
		"the agent imports a service":     {importDirections, []source{parse("agent/host/a.go", `package a; import "chandler/services/daemon"`)}, []string{"agent/host/a.go: imports services/daemon"}},
		"a name that only begins alike":   {importDirections, []source{parse("services/content/a.go", `package a; import "chandler/services/contents"`)}, []string{"services/content/a.go: imports services/contents"}},
		"cgo":                             {importDirections, []source{parse("agent/host/a.go", `package a; import "C"`)}, []string{"agent/host/a.go: cgo"}},
		"an init function":                {initFunctions, []source{parse("agent/host/a.go", `package a; func init() {}`)}, []string{"agent/host/a.go: has an init function"}},
		"another package's metric": {metricNames, []source{parse("agent/host/metrics.go", `package host; var a = prometheus.CounterOpts{Name: "chandler_bus_x"}`)},
			[]string{`agent/host/metrics.go: metric "chandler_bus_x" does not begin with chandler_host_`}},
		"a metric elsewhere": {metricNames, []source{parse("agent/host/host.go", `package host; var a = prometheus.CounterOpts{Name: "chandler_host_x"}`)},
			[]string{"agent/host/host.go: declares the metric chandler_host_x…"}},
		"a label for each agent": {metricNames, []source{parse("agent/host/metrics.go", `package host; var a = prometheus.NewGaugeVec(o, []string{"state", "agent"})`)},
			[]string{`agent/host/metrics.go: a metric has the label "agent", which has a value for each of them`}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, c.rule(c.all)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if n := len(serviceDocs(nil)); n != 16 {
		t.Errorf("%d headings are missed where nothing is documented, want 16", n)
	}
}
