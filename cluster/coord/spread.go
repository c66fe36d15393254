package coord

import "context"

// spread has the other members hear soon that an entry was committed.
func (s *seat) spread() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// spreadNews writes an empty entry behind those that were committed, since a leader
// tells what is committed only with what it sends next: by itself that is after
// CommitTimeout, 20 to 40 ms later (hashicorp/raft v1.8.0, Raft.replicate), for which
// whoever proposed through another member would wait. One empty entry stands for all
// that were committed before it.
func (s *seat) spreadNews(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.news:
		}
		if !s.alone() {
			// One that does not come to be, because another leads by now, has no news.
			_ = s.raft.Barrier(leaderWait).Error()
		}
	}
}
