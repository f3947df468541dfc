package supervise

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// FuzzRecorder compares the file with what a recorder without a limit on memory would have kept.
func FuzzRecorder(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), int64(7), 3)
	f.Add([]byte("0123456789"), int64(10), 100)
	f.Add([]byte("0123456789"), int64(1), 1)
	f.Fuzz(func(t *testing.T, stream []byte, limit int64, piece int) {
		if limit < 0 || limit > 1<<20 || piece < 1 {
			t.Skip()
		}
		file, err := os.CreateTemp("", "chandler-test-output-")
		if err != nil {
			t.Fatal(err)
		}
		path := file.Name()
		defer os.Remove(path)
		r := newRecorder(file, limit)
		for rest := stream; len(rest) > 0; {
			n := min(piece, len(rest))
			r.Write(rest[:n])
			rest = rest[n:]
		}
		total, dropped := r.finish()
		r.Write([]byte("after the end"))
		want, size := stream, int64(len(stream))
		if size > limit {
			head := limit - limit/2
			want = fmt.Appendf(bytes.Clone(stream[:head]), "\n[%d bytes left out here]\n", size-limit)
			want = append(want, stream[size-limit/2:]...)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || total != size || dropped != max(0, size-limit) {
			t.Errorf("kept %q of %d (%d dropped), want %q", got, total, dropped, want)
		}
	})
}

func TestOutputThatTheDiskRefusesIsCountedAsDropped(t *testing.T) {
	file, err := os.Open(os.Args[0]) // for reading only: every write fails
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder(file, 100)
	if n, err := r.Write([]byte("lost")); n != 4 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if total, dropped := r.finish(); total != 4 || dropped != 4 {
		t.Errorf("%d of %d dropped", dropped, total)
	}
}
