package access

import "chandler/events"

// grantBackup lets all that streams and buckets hold be read, and where their readers are, for a backup. The
// broker delivers the copy of a stream in parts, and waits for each to be acknowledged; what is written to
// a bucket meanwhile is read after that by readers of the moment.
func grantBackup(g *grant, streams []string) {
	for _, name := range streams {
		g.pub(jsAPI+"STREAM.SNAPSHOT."+name, "$JS.SNAPSHOT.ACK."+name+".>", jsAPI+"CONSUMER.LIST."+name)
	}
	for _, b := range events.Buckets() {
		grantFollow(g, bucketStream(b))
	}
}
