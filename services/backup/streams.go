package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// order in which streams are copied; the package's doc says why. A stream that is declared later and not
// named here comes after the others, so that it is not forgotten.
func order() []string {
	names := []string{bucket(events.BucketDeployments), bucket(events.BucketCollections), bucket(events.BucketAgents), bucket(events.BucketPackages),
		bucket(events.BucketEnrolments), bucket(events.BucketAccounts), bucket(events.BucketLeases), bucket(events.BucketTrust),
		events.StreamFold, bucket(events.BucketFold), bucket(events.BucketOrders), bucket(events.BucketControl),
		events.StreamEvents, events.StreamTimers, events.StreamStatus, events.StreamHistory, events.StreamJobs, events.StreamLogs, events.StreamDeadLetter}
	for _, b := range events.Buckets() {
		if !slices.Contains(names, bucket(b.Name)) {
			names = append(names, bucket(b.Name))
		}
	}
	for _, s := range events.Streams() {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// bucket is the name of the stream that keeps a bucket.
func bucket(name string) string {
	for _, b := range events.Buckets() {
		if b.Name == name && b.Objects {
			return "OBJ_" + name
		}
	}
	return "KV_" + name
}

// isBucket says whether a stream keeps a bucket: newer messages take the place of older ones in it.
func isBucket(stream string) bool {
	return slices.ContainsFunc(events.Buckets(), func(b events.Bucket) bool { return bucket(b.Name) == stream })
}

// positions of the durable readers of every stream: where a reader goes on that has done nothing since.
func positions(ctx context.Context, js jetstream.JetStream) (map[string][]Reader, error) {
	all := map[string][]Reader{}
	for _, s := range events.Streams() {
		stream, err := js.Stream(ctx, s.Name)
		if err != nil {
			return nil, fmt.Errorf("look at stream %s: %w", s.Name, err)
		}
		listed := stream.ListConsumers(ctx)
		for c := range listed.Info() {
			if c.Config.Durable != "" {
				all[s.Name] = append(all[s.Name], Reader{c.Config, c.AckFloor.Stream + 1})
			}
		}
		if err := listed.Err(); err != nil {
			return nil, fmt.Errorf("list the readers of stream %s: %w", s.Name, err)
		}
	}
	return all, nil
}

// config for one broker that keeps the stream by itself.
func (s Stream) config() (server.StreamConfig, error) {
	var c server.StreamConfig
	if err := json.Unmarshal(s.Config, &c); err != nil {
		return c, fmt.Errorf("stream %s: its configuration: %w", s.Name, err)
	}
	if c.Name != s.Name || c.Mirror != nil || len(c.Sources) > 0 || c.Storage != server.FileStorage {
		return c, fmt.Errorf("stream %s: its configuration is of another, or of one that is fed from elsewhere or kept in memory", s.Name)
	}
	c.Replicas, c.Placement = 1, nil
	return c, nil
}
