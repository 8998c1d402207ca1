// Who works here and in which teams: what would be tables of a database. It is the truth about membership; the edge
// enforces what `authorize` derives from it.

export interface Person {
  id: string;
  name: string;
  role: 'admin' | 'member';
}

export interface Team {
  id: string;
  name: string;
  members: Person[];
}

const ada: Person = { id: 'ada', name: 'Ada', role: 'admin' };
const ben: Person = { id: 'ben', name: 'Ben', role: 'member' };
const cleo: Person = { id: 'cleo', name: 'Cleo', role: 'member' };
const dan: Person = { id: 'dan', name: 'Dan', role: 'member' };

export class People {
  readonly all: readonly Person[] = [ada, ben, cleo, dan];
  readonly teams: readonly Team[] = [
    { id: 'design', name: 'Design', members: [ada, ben, cleo] },
    { id: 'engineering', name: 'Engineering', members: [ada, ben, dan] },
  ];
  readonly #removed = new Set<string>();

  find(id: unknown): Person | undefined {
    return this.all.find((person) => person.id === id);
  }

  /** The team, if this person belongs to it, removed or not. */
  team(id: unknown, person: Person): Team | undefined {
    return this.teamsOf(person).find((team) => team.id === id);
  }

  teamsOf(person: Person): Team[] {
    return this.teams.filter((team) => team.members.includes(person));
  }

  isRemoved(team: Team, person: Person): boolean {
    return this.#removed.has(`${team.id}/${person.id}`);
  }

  setRemoved(team: Team, person: Person, removed: boolean): void {
    const key = `${team.id}/${person.id}`;
    if (removed) this.#removed.add(key);
    else this.#removed.delete(key);
  }
}
