package filesource

import (
	"os"
	"path/filepath"
	"testing"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

func TestFilesAndFoldersOfADriveAreRead(t *testing.T) {
	dir, err := os.MkdirTemp("", "filesource")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "My App.bin")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path); os.Remove(dir) })
	addressOf := func(path string) string {
		return resource.Resource{Scheme: resource.File, Path: "/" + filepath.ToSlash(path)}.String()
	}
	s := New(Options{})
	o, err := s.Open(t.Context(), addressOf(path), source.Login{})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4)
	if n, err := o.ReadAt(t.Context(), p, 3); n != 4 || err != nil || string(p) != "3456" || o.Info().Size != 10 {
		t.Errorf("%+v: %q, %v", o.Info(), p[:n], err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	folder, err := s.Open(t.Context(), addressOf(dir), source.Login{})
	if err != nil || !folder.Info().Folder {
		t.Fatal(err)
	}
	defer folder.Close()
	for range 2 {
		if all, err := folder.List(t.Context()); err != nil || len(all) != 1 || all[0].Name != "My App.bin" || all[0].Size != 10 {
			t.Errorf("%+v: %v", all, err)
		}
	}
	_, err = s.Open(t.Context(), addressOf(path+"x"), source.Login{})
	wantReason(t, err, events.SourceNotFound, "(2/0x80070002)")
	if o, err := s.Open(t.Context(), addressOf(filepath.Join(dir, "NUL")), source.Login{}); err == nil {
		t.Errorf("a device is opened as %+v", o.Info())
	}
}
