package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/target"
	"chandler/events/trust"
)

// maxVerified bounds the orders that are remembered; beyond it all are forgotten and verified again.
const maxVerified = 1024

// verifier verifies each order once for all members, as long as the trust bundle stays the same. Only what passed is
// remembered; times are looked at for each.
type verifier struct {
	mu     sync.Mutex
	orders map[orderKey]*verifiedOrder
}

type orderKey struct {
	envelope [sha256.Size]byte
	fleet    string
	version  int
}

// verifiedOrder is one that bears enough signatures, with its target for each pair of lists that came with it.
type verifiedOrder struct {
	order  order.Order
	digest string

	mu      sync.Mutex
	targets map[string]target.Target
}

func newVerifier() *verifier { return &verifier{orders: map[orderKey]*verifiedOrder{}} }

// verify is [order.Verify].
func (v *verifier) verify(envelope []byte, b trust.Bundle, now time.Time) (*verifiedOrder, error) {
	key := orderKey{sha256.Sum256(envelope), b.Fleet, b.Version}
	v.mu.Lock()
	known := v.orders[key]
	v.mu.Unlock()
	if known != nil && !now.After(known.order.NotAfter) && !now.Before(known.order.Issued) {
		return known, nil
	}
	o, digest, err := order.Verify(envelope, b, now)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if known = v.orders[key]; known == nil { // another member may have been first
		if len(v.orders) >= maxVerified {
			clear(v.orders)
		}
		known = &verifiedOrder{order: o, digest: digest, targets: map[string]target.Target{}}
		v.orders[key] = known
	}
	return known, nil
}

// target is [order.Order.Target].
func (o *verifiedOrder) target(answer events.OrderAnswer) (target.Target, error) {
	key := listsKey(answer.Include, answer.Exclude)
	o.mu.Lock()
	defer o.mu.Unlock() // the others would do the same work
	if t, ok := o.targets[key]; ok {
		return t, nil
	}
	t, err := o.order.Target(answer.Include, answer.Exclude)
	if err == nil {
		o.targets[key] = t // only the lists that were signed pass, in any order: nobody can fill this
	}
	return t, err
}

func listsKey(include, exclude []string) string {
	if len(include)+len(exclude) == 0 {
		return ""
	}
	h := sha256.New()
	for _, list := range [][]string{include, exclude} {
		for _, id := range list {
			h.Write([]byte(id + "\n"))
		}
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}
