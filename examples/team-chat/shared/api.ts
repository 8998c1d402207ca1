// What the page and the application say to each other over HTTP.

export interface PersonView {
  id: string;
  name: string;
  isAdmin: boolean;
}

export interface TeamView {
  id: string;
  name: string;
  /** The person who asks was removed from it. */
  removed: boolean;
  members: { id: string; name: string; removed: boolean }[];
}

export interface Me {
  person: PersonView;
  teams: TeamView[];
}
