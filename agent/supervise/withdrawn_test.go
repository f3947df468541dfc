package supervise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEachWithdrawnLeaseIsHeardOnce(t *testing.T) {
	dir := t.TempDir()
	run, err := Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	add := func(text string) {
		t.Helper()
		file, err := os.OpenFile(filepath.Join(dir, withdrawnFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	heard := withdrawals{dir: dir}
	for _, step := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"nothing", func() error { return nil }, nil},
		{"two", func() error {
			if err := run.Withdraw("a"); err != nil {
				return err
			}
			return run.Withdraw("b")
		}, []string{"a", "b"}},
		{"nothing new", func() error { return nil }, nil},
		{"the same again", func() error { return run.Withdraw("a") }, []string{"a"}},
		{"half a line", func() error { add("\nhal"); return nil }, nil},
		{"one after half a line", func() error { return run.Withdraw("c") }, []string{"hal", "c"}},
		{"no leases", func() error { add("A B\n" + strings.Repeat("x", 65) + "\n"); return nil }, nil},
		{"one after too long a line", func() error { add(strings.Repeat("x", 3*maxWithdrawn)); return run.Withdraw("d") }, nil},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		got, err := heard.next()
		if diff := cmp.Diff(step.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", step.what, err, diff)
		}
	}
	var last []string
	for range 4 { // what comes after what is too long
		got, err := heard.next()
		if err != nil {
			t.Fatal(err)
		}
		last = append(last, got...)
	}
	if diff := cmp.Diff([]string{"d"}, last); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(filepath.Join(dir, withdrawnFile)); err != nil || os.PathSeparator == '/' && info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info, err)
	}
}

func TestAWithdrawalNeedsALeaseButNoRun(t *testing.T) {
	run, err := Attach(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Withdraw("a"); err != nil {
		t.Errorf("of a run that has not begun: %v", err)
	}
	if err := run.Withdraw("a\nb"); err == nil {
		t.Error("two lines are a lease")
	}
}
