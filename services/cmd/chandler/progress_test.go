package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestProgressIsALineForEveryTenthWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	const total = 2048 << 10
	p := newProgress(&out, false, "upload", total)
	for _, done := range []int64{0, 100, 300, 200, 1024, 2048} { // 200: something is sent again
		p.set(done<<10, total)
	}
	p.finish(true)
	if want := "upload: 10% of 2.0 MiB\nupload: 50% of 2.0 MiB\nupload: 100% of 2.0 MiB\n"; out.String() != want {
		t.Fatalf("got %q, want %q", out.String(), want)
	}
}

func TestASmallTransferIsNotToldOfWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	for _, total := range []int64{0, 2048, smallTransfer - 1} {
		p := newProgress(&out, false, "upload", total)
		p.set(total/2, total)
		p.set(total, total)
		p.finish(true)
	}
	if out.Len() > 0 {
		t.Fatalf("got %q", out.String())
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
