package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// smallTransfer is over before anybody reads how far it is, in bytes.
const smallTransfer = 1 << 20

// progress shows how far a transfer has got: a bar on a terminal; otherwise a line for every tenth, but of a small one none.
type progress struct {
	bars *mpb.Progress
	bar  *mpb.Bar

	w     io.Writer
	what  string
	mu    sync.Mutex
	tenth int64 // last one written
}

func newProgress(w io.Writer, terminal bool, what string, total int64) *progress {
	p := &progress{w: w, what: what}
	if terminal {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(48), mpb.WithAutoRefresh())
		// A bar made with a total could only be ended by reaching it.
		p.bar = p.bars.AddBar(0, mpb.PrependDecorators(decor.Name(what+" ")),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")))
		p.bar.SetTotal(max(total, 1), false)
	}
	return p
}

// set tells the bytes done of total. It may be called from several goroutines, and with less than before
// when something is sent again.
func (p *progress) set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.SetCurrent(done)
		return
	}
	if total < smallTransfer {
		return
	}
	if tenth := done * 10 / total; tenth > p.tenth {
		p.tenth = tenth
		fmt.Fprintf(p.w, "%s: %d%% of %s\n", p.what, tenth*10, byteSize(total))
	}
}

// finish leaves the bar as it ended and waits until it is drawn.
func (p *progress) finish(complete bool) {
	if p.bar == nil {
		return
	}
	if complete {
		p.bar.SetTotal(-1, true)
	} else {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}
