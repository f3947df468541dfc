package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestProgressIsALineForEveryTenthWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, false, "upload", 2048)
	for _, done := range []int64{0, 100, 300, 200, 1024, 2048} { // 200: something is sent again
		p.set(done, 2048)
	}
	p.finish(true)
	if want := "upload: 10% of 2.0 KiB\nupload: 50% of 2.0 KiB\nupload: 100% of 2.0 KiB\n"; out.String() != want {
		t.Fatalf("got %q, want %q", out.String(), want)
	}
}

func TestABarEndsAlsoWhenTheTransferFails(t *testing.T) {
	for _, complete := range []bool{true, false} {
		var out bytes.Buffer
		p := newProgress(&out, true, "upload", 2048)
		p.set(1024, 2048)
		p.finish(complete) // returns
		if !strings.Contains(out.String(), "upload") {
			t.Errorf("complete %v: nothing was drawn: %q", complete, out.String())
		}
	}
}
