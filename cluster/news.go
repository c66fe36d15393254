package cluster

import (
	"context"
	"time"

	"muster/cluster/coord"
	"muster/state/store"
)

// newsWaiting is how many news may wait for the coordination log.
const newsWaiting = 4096

// newsTogether is how many of them one entry of the log carries at most.
const newsTogether = 256

// newsPatience is how long news are tried to be told while nobody coordinates.
const newsPatience = 30 * time.Second

// Tell makes a lifecycle event, on every member, of something that happened here and
// changed nothing that is recorded. It does not wait for it: a file is not read any slower
// because others hear of it. News that nobody could be told for long are in this member's
// log only.
func (c *Cluster) Tell(ctx context.Context, project string, event Lifecycle) {
	news := coord.News{
		At: c.now(), Member: c.cfg.MemberID, Project: project, Action: event.Action, Source: event.Source,
		Name: event.Name, Context: event.Context, Requestor: store.RequestorOf(ctx),
	}
	select {
	case c.news <- news:
	default:
		c.log.Warn("too much happens at once to tell the other members of all of it", "action", news.Action, "source", news.Source)
	}
}

// tendNews tells the members what Tell was given, in that order.
func (c *Cluster) tendNews(ctx context.Context) error {
	for {
		var news []coord.News
		select {
		case <-ctx.Done():
			return nil
		case first := <-c.news:
			news = append(news, first)
		}
		for more := true; more && len(news) < newsTogether; {
			select {
			case next := <-c.news:
				news = append(news, next)
			default:
				more = false
			}
		}
		c.tellNews(ctx, news)
	}
}

func (c *Cluster) tellNews(ctx context.Context, news []coord.News) {
	if c.cfg.Coord == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, newsPatience)
	defer cancel()
	for {
		_, err := c.cfg.Coord.Propose(ctx, coord.Tell(news))
		if err == nil {
			return
		}
		if !coord.NotApplied(err) || ctx.Err() != nil {
			c.log.Warn("tell the other members what happened here", "events", len(news), "first", news[0].Action, "source", news[0].Source, "error", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
