package content

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/services/content/publish"
)

// packSpec reads a package of a package.yaml, which ada signs.
func (s *story) packSpec(spec string) *publish.Plan {
	s.t.Helper()
	dir := s.t.TempDir()
	writeAll(s.t, dir, map[string]string{publish.SpecName: "api: chandler/v1\n" + spec, "a.sh": spec})
	p, err := publish.Read(s.t.Context(), dir, publish.Options{Seal: signedBy("ada")})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

const (
	oldApp  = "package: app\nversion: \"1\"\nprograms: {install: {command: [sh, a.sh], run: administrative}, remove: {command: 'true', run: administrative, undoes: install}}\n"
	library = "package: runtime\nversion: \"4\"\nprograms: {install: {command: [sh, a.sh], run: administrative}}\n"
	newApp  = "package: app\nversion: \"2\"\nsupersedes: [{package: app, version: < 2, uninstall: app@1/remove}]\n" +
		"programs: {install: {command: [sh, a.sh], run: administrative, run-first: [runtime@4/install]}}\n"
	above = "package: suite\nversion: \"1\"\nprograms: {install: {command: [sh, a.sh], run: administrative, run-first: [app@2/install]}}\n"
)

func TestAPackageIsPublishedOnlyAfterWhatItDependsOn(t *testing.T) {
	s := begin(t)
	suite := s.packSpec(above)
	refused := func(chain string) {
		t.Helper()
		if _, err := s.publish(suite); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), chain) {
			t.Errorf("%v\nwant %s", err, chain)
		}
		if s.blobs.Has(suite.Digest) {
			t.Error("the refused manifest is still stored")
		}
	}
	refused("suite@1/install → app@2 (not published)")
	s.mustPublish(s.packSpec(oldApp))
	s.mustPublish(s.packSpec(library))
	s.mustPublish(s.packSpec(newApp))
	s.mustPublish(suite)
	if _, err := s.publish(s.packSpec(strings.Replace(above, "suite", "other", 1) + "supersedes: [{package: runtime}]\n")); !errors.Is(err, bus.ErrConflict) ||
		!strings.Contains(err.Error(), "other@1/install → app@2/install → runtime@4/install: other@1 supersedes runtime@4") {
		t.Errorf("one that depends on what it supersedes: %v", err)
	}
	if _, err := s.publish(s.packSpec(strings.Replace(library, "\"4\"", "\"5\"", 1) + "supersedes: [{package: app, version: \"3\"}, {package: app, version: \"2\"}]\n")); err != nil {
		t.Errorf("one that supersedes others: %v", err)
	}
	if _, err := s.publish(s.packSpec(strings.Replace(newApp, "\"2\"", "\"3\"", 1) + "comment: x\n")); err != nil {
		t.Errorf("a newer one: %v", err)
	}
	mutual := "package: app\nversion: \"2\"\nsupersedes: [{package: suite}]\nprograms: {install: {command: [sh, a.sh], run: administrative}}\n"
	s.mustPublish(s.packSpec(strings.Replace(mutual, "app", "rival", 1)))
	if _, err := s.publish(s.packSpec(strings.NewReplacer("app", "suite", "suite", "rival").Replace(mutual))); !errors.Is(err, bus.ErrConflict) ||
		!strings.Contains(err.Error(), "suite@2 and rival@2 supersede each other") {
		t.Errorf("two that supersede each other: %v", err)
	}
}

func TestAPackageThatOthersNeedIsNotRemoved(t *testing.T) {
	s := begin(t)
	for _, spec := range []string{oldApp, library, newApp, above} {
		s.mustPublish(s.packSpec(spec))
	}
	for _, c := range []struct{ name, version, by string }{{"runtime", "4", "app@2"}, {"app", "1", "app@2"}, {"app", "2", "suite@1"}} {
		if _, err := s.remove(c.name, c.version); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "needed by those of "+c.by+":") {
			t.Errorf("%s %s: %v", c.name, c.version, err)
		}
	}
	eventstest.ExpectExactly(t, s.admin, events.PackageRemoved, func(events.Event[events.PackageNotice]) bool { return true }, 0)
	for _, c := range []struct{ name, version string }{{"suite", "1"}, {"app", "2"}, {"app", "1"}, {"runtime", "4"}} {
		if _, err := s.remove(c.name, c.version); err != nil {
			t.Errorf("%s %s, which nothing needs any more: %v", c.name, c.version, err)
		}
	}
}

func TestWhatAPackageNeedsIsKnownAlsoWhereItsManifestIsLost(t *testing.T) {
	s := begin(t)
	for _, spec := range []string{oldApp, library} {
		s.mustPublish(s.packSpec(spec))
	}
	app := s.packSpec(newApp)
	s.mustPublish(app)
	rec, err := s.records.get(t.Context(), "app", "2")
	if err != nil {
		t.Fatal(err)
	}
	rec.Manifest = nil // as of a large one
	if _, err := s.records.put(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	if err := s.blobs.Remove(app.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.remove("runtime", "4"); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "those of app@2") {
		t.Errorf("a package that a lost one needs: %v", err)
	}
	for _, at := range [][2]string{{"app", "2"}, {"runtime", "4"}} {
		if _, err := s.remove(at[0], at[1]); err != nil {
			t.Errorf("%s %s: %v", at[0], at[1], err)
		}
	}
}

func TestAPackageThatWouldTakeADeploymentBackIsNeededByIt(t *testing.T) {
	s := begin(t)
	for _, version := range []string{"1", "2"} {
		s.mustPublish(s.pack("hello", version, clock, map[string]string{"a.sh": version}))
	}
	n := events.DeploymentNotice{Deployment: "d1", Revision: 1, Package: "hello", Version: "2"}
	if err := s.noteUse(t.Context(), "d1", n, "hello@1/install", false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.remove("hello", "1"); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "needed by d1") {
		t.Errorf("the package that takes it back: %v", err)
	}
	n.Revision = 2
	if err := s.noteUse(t.Context(), "d1", n, "hello@2/remove", false); err != nil {
		t.Fatal(err)
	}
	if info, err := s.show("hello", "2"); err != nil || !cmp.Equal(info.Deployments, []string{"d1"}) {
		t.Errorf("deployments %v, %v", info.Deployments, err)
	}
	if _, err := s.remove("hello", "1"); err != nil {
		t.Errorf("nobody needs it any more: %v", err)
	}
}
