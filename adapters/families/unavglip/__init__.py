"""UnAvgLip: keeps a person's identity in MuseTalk's lip-sync, by face tokens beside the sound's."""
