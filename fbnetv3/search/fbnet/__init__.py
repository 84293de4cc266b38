"""The search over FBNet networks and training recipes: configs, trainings, run folders."""
