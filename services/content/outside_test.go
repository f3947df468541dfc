package content

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/services/content/publish"
)

// packOutside reads a package of the given files, which lie on an external source, and of one more that is the package's own.
func (s *story) packOutside(name string, own map[string]string, outside map[string]string) *publish.Plan {
	s.t.Helper()
	mounted := s.t.TempDir()
	writeAll(s.t, mounted, outside)
	dir := s.t.TempDir()
	spec := "api: chandler/v1\npackage: " + name + "\nversion: \"1\"\n"
	if len(own) == 0 {
		spec += "source: smb://files/apps\n"
	}
	own[publish.SpecName] = spec + "programs: {install: {command: ['\\\\files\\apps\\setup.sh'], run: user}}\n"
	writeAll(s.t, dir, own)
	p, err := publish.Read(s.t.Context(), dir, publish.Options{Seal: signedBy("ada"), Mounted: map[string]string{"smb://files/apps": mounted}})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func TestFilesOnExternalSourcesAreNeitherAskedForNorKept(t *testing.T) {
	s := begin(t)
	setup, shared := events.DigestOf([]byte("setup")), events.DigestOf([]byte("shared"))
	wholly := s.mustPublish(s.packOutside("wholly", map[string]string{}, map[string]string{"setup.sh": "setup", "b": "shared"}))
	partly := s.mustPublish(s.packOutside("partly", map[string]string{"b": "shared"}, map[string]string{"setup.sh": "setup"}))
	if s.blobs.Has(setup) || !s.blobs.Has(shared) {
		t.Errorf("kept: %t of outside, %t of its own", s.blobs.Has(setup), s.blobs.Has(shared))
	}
	for name, c := range map[string]struct {
		info events.PackageInfo
		at   []string
	}{
		"wholly": {wholly, []string{"", ""}},
		"partly": {partly, []string{"", "smb://files/apps/setup.sh"}},
	} {
		shown, err := s.show(name, "1")
		if err != nil {
			t.Fatal(err)
		}
		var at []string
		for _, f := range shown.Manifest.Files {
			at = append(at, f.Source)
		}
		if diff := cmp.Diff(c.at, at); diff != "" || shown.Digest != c.info.Digest || shown.Manifest.Size() != 11 {
			t.Errorf("%s: %s, %d bytes", name, diff, shown.Manifest.Size())
		}
	}
	// Another package that names the same bytes elsewhere does not need the blob.
	if _, err := s.remove("partly", "1"); err != nil {
		t.Fatal(err)
	}
	s.until("the blob is gone", func() bool { return !s.blobs.Has(shared) })
	if _, err := s.show("wholly", "1"); err != nil || !s.blobs.Has(wholly.Digest) {
		t.Errorf("the other package: %v", err)
	}
	if diff := cmp.Diff([]string{"wholly@1"}, s.list()); diff != "" {
		t.Error(diff)
	}
}
